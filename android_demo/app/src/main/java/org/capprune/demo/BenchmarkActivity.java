package org.capprune.demo;

import android.app.Activity;
import android.content.Context;
import android.content.Intent;
import android.os.Bundle;
import android.view.View;
import android.view.WindowManager;
import android.widget.TextView;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicBoolean;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.bundle.GoldenCaption;
import org.capprune.core.measure.Environment;
import org.capprune.core.measure.PhotoRun;
import org.capprune.core.measure.RunSummary;

/** Measures the bundle on its own photos and writes the results document of every device. */
public final class BenchmarkActivity extends Activity {
    private static final int CAPTIONS = 24; // enough for a verdict
    private static final int THREADS = 1;

    private final AtomicBoolean stopped = new AtomicBoolean();
    private TextView text;
    private View share;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.report);
        getWindow().addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        text = findViewById(R.id.report);
        text.setText(R.string.running);
        share = findViewById(R.id.share);
        share.setOnClickListener(view -> share());
        Context context = getApplicationContext();
        Worker.run(() -> measure(context), this::show, error -> text.setText(Sentences.of(this, error)));
    }

    @Override
    protected void onDestroy() {
        stopped.set(true);
        super.onDestroy();
    }

    private void show(String report) {
        if (report != null) {
            text.setText(report);
            share.setVisibility(View.VISIBLE);
        }
    }

    private String measure(Context context) throws IOException {
        List<GoldenCaption> golden = Models.get(context).bundle.golden();
        if (golden.isEmpty()) {
            throw new CapPruneException(ErrorKind.DATA, "this bundle has no photos of its own");
        }
        File folder = new File(context.getCacheDir(), "benchmark");
        File photos = new File(folder, "photos");
        if (!photos.isDirectory() && !photos.mkdirs()) {
            throw new IOException("cannot make " + photos);
        }
        File bundle = new File(folder, Models.ASSET);
        write(bundle, Models.asset(context));
        for (int n = 0; n < CAPTIONS; n++) {
            byte[] photo = Models.get(context).bundle.files().get(golden.get(n % golden.size()).photo());
            write(new File(photos, String.format(Locale.ROOT, "%05d.png", n)), photo);
        }
        File results = new File(context.getCacheDir(), FileProvider.RESULTS);
        PhotoRun.Request request = new PhotoRun.Request(bundle, photos, results, 0, THREADS);
        PhotoRun run = new PhotoRun(request, Engines.open(), Photo::square,
                new Environment(new Phone(context, null)), AboutActivity.version(context));
        boolean finished = run.run(
                (done, all) -> Worker.tell(() -> text.setText(getString(R.string.progress, done, all))), stopped::get);
        return finished ? RunSummary.of(results) : null;
    }

    private static void write(File file, byte[] content) throws IOException {
        try (OutputStream stream = new FileOutputStream(file)) {
            stream.write(content);
        }
    }

    private void share() {
        Intent send = new Intent(Intent.ACTION_SEND).setType("application/json")
                .putExtra(Intent.EXTRA_STREAM, FileProvider.uri(FileProvider.RESULTS))
                .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION);
        startActivity(Intent.createChooser(send, null));
    }
}
