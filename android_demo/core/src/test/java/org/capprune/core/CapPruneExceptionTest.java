package org.capprune.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import java.io.File;
import org.capprune.core.bundle.Bundle;
import org.junit.Test;

public class CapPruneExceptionTest {
    @Test
    public void theMessageSaysWhatWhereExpectedFoundAndWhatToTry() {
        CapPruneException error = new CapPruneException(ErrorKind.BUNDLE, "a thing is wrong").at("key")
                .inside("file").expected(1).found(2).hint("again");
        assertEquals("a thing is wrong: file, key\n  expected  1\n  found     2\n  try       again",
                error.getMessage());
        assertEquals("{error=BundleError, exit_code=5, what=a thing is wrong, where=file, key, expected=1, found=2, "
                + "try=again}", error.asJson().toString());
    }

    @Test
    public void aBundleThatIsNotThereIsAUsageError() {
        CapPruneException error =
                assertThrows(CapPruneException.class, () -> Bundle.open(new File("/nowhere/at/all")));
        assertEquals(ErrorKind.USAGE, error.kind());
    }
}
