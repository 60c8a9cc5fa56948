plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "org.capprune.demo"
    compileSdk = 36

    defaultConfig {
        applicationId = "org.capprune.demo"
        minSdk = 24
        targetSdk = 36
        versionCode = 2
        versionName = "0.2.0"
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64") // x86_64 for emulators
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    // LiteRT's Java API. The offline build takes src/shim instead: our own shim over the TfLite C API.
    sourceSets["main"].java.srcDir("src/litert/java")

    androidResources {
        noCompress += listOf("capz", "tflite")
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro")
        }
    }
}

dependencies {
    implementation(project(":core"))
    implementation(libs.litert)
}

// ./gradlew putBundle -Pbundle=/path/to/bundle.capz
val putBundle by tasks.registering(Copy::class) {
    description = "Puts a packed bundle into the app."
    from(providers.gradleProperty("bundle"))
    into(layout.projectDirectory.dir("src/main/assets"))
    rename { "bundle.capz" }
}
