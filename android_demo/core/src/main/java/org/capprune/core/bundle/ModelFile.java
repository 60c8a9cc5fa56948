package org.capprune.core.bundle;

import java.util.Map;

/**
 * A model file that has passed every check, and the place of each tensor of its one signature.
 *
 * @param data the whole .tflite file
 * @param signature the signature's name
 * @param inputs by name, the position among the subgraph's inputs
 * @param outputs by name, the position among the subgraph's outputs
 */
public record ModelFile(byte[] data, String signature, Map<String, Integer> inputs, Map<String, Integer> outputs) {}
