package org.capprune.core.bundle;

/**
 * One photo of a bundle and the caption that it must give.
 *
 * @param photo its path in the bundle
 * @param beam K of the search
 * @param tokens ids without {@code <start>} and {@code <end>}
 * @param caption the same in words
 */
public record GoldenCaption(String photo, int beam, int[] tokens, String caption) {}
