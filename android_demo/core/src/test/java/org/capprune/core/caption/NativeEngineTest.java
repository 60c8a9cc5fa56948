package org.capprune.core.caption;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.junit.Assume;
import org.junit.Test;

public class NativeEngineTest {
    @Test
    public void aShimThatIsNotThereIsAnErrorOfTheDevice() {
        Assume.assumeTrue(System.getProperty("capprune.files") != null); // under pytest, where no shim is in the path
        CapPruneException error = assertThrows(CapPruneException.class, NativeEngine::open);
        assertEquals(ErrorKind.DEVICE, error.kind());
        assertTrue(error.getMessage(), error.getMessage().contains("capprune_tflite"));
    }
}
