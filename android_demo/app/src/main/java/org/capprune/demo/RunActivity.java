package org.capprune.demo;

import android.app.Activity;
import android.content.Context;
import android.content.Intent;
import android.os.Bundle;
import android.view.WindowManager;
import android.widget.TextView;
import java.io.File;
import java.util.concurrent.atomic.AtomicBoolean;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.measure.Environment;
import org.capprune.core.measure.PhotoRun;

/** Captions a folder of photos for the workstation's runner; docs/results_schema.md has the intent. */
public final class RunActivity extends Activity {
    private final AtomicBoolean stopped = new AtomicBoolean();
    private TextView text;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.report);
        getWindow().addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        text = findViewById(R.id.report);
        text.setText(R.string.running);
        Intent intent = getIntent();
        String bundle = intent.getStringExtra("bundle");
        String photos = intent.getStringExtra("photos");
        String results = intent.getStringExtra("results");
        if (bundle == null || photos == null || results == null) {
            text.setText(R.string.run_needs);
            return;
        }
        PhotoRun.Request request = new PhotoRun.Request(new File(bundle), new File(photos), new File(results),
                intent.getIntExtra("beam", 0), intent.getIntExtra("threads", 1));
        String standIn = intent.getStringExtra("stand_in");
        Context context = getApplicationContext();
        Worker.run(() -> run(context, request, standIn), finished -> text.setText(finished ? R.string.done : R.string.running),
                error -> text.setText(Sentences.of(this, error)));
    }

    @Override
    protected void onDestroy() {
        stopped.set(true);
        super.onDestroy();
    }

    private boolean run(Context context, PhotoRun.Request request, String standIn) throws Exception {
        request.requireResultsBelow(context.getExternalFilesDir(null));
        try {
            PhotoRun run = new PhotoRun(request, Engines.open(), Photo::square,
                    new Environment(new Phone(context, standIn)), AboutActivity.version(context));
            return run.run((done, all) -> Worker.tell(() -> text.setText(getString(R.string.progress, done, all))),
                    stopped::get);
        } catch (RuntimeException | OutOfMemoryError error) { // the runner waits for a document, whatever happens
            PhotoRun.writeFailure(told(error), request.results());
            throw error;
        }
    }

    private static CapPruneException told(Throwable error) {
        if (error instanceof CapPruneException known) {
            return known;
        }
        return error instanceof OutOfMemoryError
                ? new CapPruneException(ErrorKind.DEVICE, "the device ran out of memory")
                : new CapPruneException(ErrorKind.DEFECT, "a defect of the app").found(error);
    }
}
