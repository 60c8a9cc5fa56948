plugins {
    `java-library`
}

java {
    toolchain {
        languageVersion = JavaLanguageVersion.of(17)
    }
}

dependencies {
    testImplementation(libs.junit)
}

// The operators that a model may use: one table, which Python's runtime reads too.
tasks.processResources {
    from(rootProject.layout.projectDirectory.file("../runtime_samples/capprune_runtime/tflite/operators.json")) {
        into("capprune/tflite")
    }
}
