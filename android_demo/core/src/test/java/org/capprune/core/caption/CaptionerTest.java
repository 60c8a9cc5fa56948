package org.capprune.core.caption;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import java.io.File;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.TestFiles;
import org.capprune.core.bundle.Bundle;
import org.capprune.core.bundle.ModelFile;
import org.junit.Test;

public class CaptionerTest {
    @Test
    public void aNumberOfThreadsThatEndsTheProcessIsRefusedBeforeAnythingIsLoaded() {
        Bundle bundle = Bundle.open(new File(TestFiles.folder("attacks"), "sound/lstm"));
        for (int threads : new int[] {Integer.MIN_VALUE, 0, 65, 1 << 30}) {
            CapPruneException error = assertThrows(
                    CapPruneException.class, () -> new Captioner(bundle, new NoEngine(), threads));
            assertEquals(ErrorKind.USAGE, error.kind());
        }
        assertThrows(AssertionError.class, () -> new Captioner(bundle, new NoEngine(), 64));
    }

    private record NoEngine() implements Interpreter.Engine {
        @Override
        public String name() {
            return "none";
        }

        @Override
        public String version() {
            return "none";
        }

        @Override
        public Interpreter load(ModelFile model, int threads) {
            throw new AssertionError("a model was loaded");
        }
    }
}
