package org.capprune.core.measure;

/** What only the platform knows of the device that this runs on; null for what it does not tell. */
public interface Host {
    /** What the operating system calls itself. */
    String os();

    /** What the phone or machine calls itself. */
    String model();

    /** Android's thermal status, 0 (none) to 6 (shutdown). */
    Integer thermalStatus();

    /** What plays the device in a test; null for a real one. */
    String standIn();
}
