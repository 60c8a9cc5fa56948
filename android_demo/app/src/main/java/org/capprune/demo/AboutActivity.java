package org.capprune.demo;

import android.app.Activity;
import android.content.Context;
import android.content.pm.PackageManager;
import android.os.Bundle;
import android.widget.TextView;
import org.capprune.core.bundle.Manifest;

/** What this app and its bundle are, and under which terms. */
public final class AboutActivity extends Activity {
    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.report);
        TextView text = findViewById(R.id.report);
        Context context = getApplicationContext();
        text.setText(getString(R.string.about_app, version(context)));
        Worker.run(() -> Models.get(context).bundle.manifest(), manifest -> text.setText(describe(manifest)),
                error -> text.setText(Sentences.of(this, error)));
    }

    private String describe(Manifest manifest) {
        return getString(R.string.about_app, version(this)) + "\n\n"
                + getString(R.string.about_bundle, manifest.createdBy(), manifest.step().vocabulary(),
                        100 * manifest.pruning().sparsity(), manifest.encoderWeights(), manifest.decoderWeights(),
                        manifest.dataName(), manifest.dataLicence(), manifest.model().description())
                + (manifest.step().regions() == null ? "\n" + getString(R.string.no_attention) : "");
    }

    /** The app's name and version, as results have it. */
    static String version(Context context) {
        try {
            return context.getPackageName() + " "
                    + context.getPackageManager().getPackageInfo(context.getPackageName(), 0).versionName;
        } catch (PackageManager.NameNotFoundException error) { // of the app itself
            throw new IllegalStateException(error);
        }
    }
}
