package org.capprune.demo;

import android.app.Activity;
import android.content.Context;
import android.os.Bundle;
import android.widget.TextView;
import java.io.IOException;
import org.capprune.core.caption.SelfTest;

/** Whether this device says of the bundle's own photos what the trained model said. */
public final class SelfTestActivity extends Activity {
    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.report);
        TextView text = findViewById(R.id.report);
        text.setText(R.string.running);
        Context context = getApplicationContext();
        Worker.run(() -> test(context), result -> text.setText(report(result)),
                error -> text.setText(Sentences.of(this, error)));
    }

    private static SelfTest test(Context context) throws IOException {
        Models models = Models.get(context);
        return SelfTest.run(models.bundle, models.captioner);
    }

    private String report(SelfTest test) {
        String verdict = getString(test.holds() ? R.string.self_test_holds : R.string.self_test_fails,
                test.identical(), test.photos());
        return verdict + "\n\n" + test.lines();
    }
}
