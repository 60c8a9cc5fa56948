package org.capprune.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import org.junit.Test;

public class JsonTextTest {
    @Test
    public void whatIsWrittenReadsBackTheSame() {
        Map<String, Object> tree = new LinkedHashMap<>();
        tree.put("text", "a \"quoted\" line\n\u0001 und Umläute \uD83D\uDE00");
        tree.put("numbers", Arrays.<Object>asList(1L, -2.5, 1e-300, Long.MAX_VALUE, true, null));
        tree.put("empty", new LinkedHashMap<String, Object>());
        assertEquals(tree, StrictJson.parse(JsonText.of(tree).getBytes(StandardCharsets.UTF_8)));
    }

    @Test
    public void numbersThatJsonLacksAreRefused() {
        assertThrows(IllegalArgumentException.class, () -> JsonText.of(Double.NaN));
        assertThrows(IllegalArgumentException.class, () -> JsonText.of(1));
    }
}
