package org.capprune.demo;

import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.ClipData;
import android.content.ClipboardManager;
import android.content.Context;
import android.content.Intent;
import android.graphics.Bitmap;
import android.net.Uri;
import android.os.Build;
import android.os.Bundle;
import android.provider.MediaStore;
import android.view.Menu;
import android.view.MenuItem;
import android.view.View;
import android.widget.Button;
import android.widget.LinearLayout;
import android.widget.TextView;
import java.io.IOException;
import java.io.InputStream;
import java.util.List;
import java.util.Objects;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.PhotoFile;
import org.capprune.core.Pixels;
import org.capprune.core.Squash;
import org.capprune.core.caption.Caption;
import org.capprune.core.caption.Confidence;

/** Pick or take a photo, read the caption, see where the model looked for each word, if it shows attention. */
public final class MainActivity extends Activity {
    private static final int PICK = 1;
    private static final int TAKE = 2;
    private static final int FIRST_WITH_PHOTO_PICKER = 33;

    private AttentionView photoView;
    private TextView captionView;
    private LinearLayout wordsView;
    private View noAttentionView;
    private View shareBar;
    private String caption = "";
    private volatile int asked; // how many photos were asked for; only the answer to the last one is shown

    /** What came of one photo. */
    private record Said(Bitmap preview, Caption caption, boolean unsure, String[] words) {}

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.main);
        photoView = findViewById(R.id.photo);
        captionView = findViewById(R.id.caption);
        wordsView = findViewById(R.id.words);
        noAttentionView = findViewById(R.id.no_attention);
        shareBar = findViewById(R.id.share_bar);
        findViewById(R.id.pick).setOnClickListener(view -> pick());
        findViewById(R.id.take).setOnClickListener(view -> take());
        findViewById(R.id.share).setOnClickListener(view -> share());
        findViewById(R.id.copy).setOnClickListener(view -> copy());
        if (Intent.ACTION_SEND.equals(getIntent().getAction()) && state == null) {
            Uri shared = getIntent().getParcelableExtra(Intent.EXTRA_STREAM);
            if (shared != null) {
                say(shared);
            }
        }
    }

    @Override
    public boolean onCreateOptionsMenu(Menu menu) {
        menu.add(Menu.NONE, R.string.self_test, Menu.NONE, R.string.self_test);
        menu.add(Menu.NONE, R.string.benchmark, Menu.NONE, R.string.benchmark);
        menu.add(Menu.NONE, R.string.about, Menu.NONE, R.string.about);
        return true;
    }

    @Override
    public boolean onOptionsItemSelected(MenuItem item) {
        Class<?> screen = item.getItemId() == R.string.self_test ? SelfTestActivity.class
                : item.getItemId() == R.string.benchmark ? BenchmarkActivity.class : AboutActivity.class;
        startActivity(new Intent(this, screen));
        return true;
    }

    private void pick() {
        Intent picker = Build.VERSION.SDK_INT >= FIRST_WITH_PHOTO_PICKER
                ? new Intent(MediaStore.ACTION_PICK_IMAGES)
                : new Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE);
        start(picker.setType("image/*"), PICK);
    }

    private void take() {
        Intent camera = new Intent(MediaStore.ACTION_IMAGE_CAPTURE);
        camera.putExtra(MediaStore.EXTRA_OUTPUT, FileProvider.uri(FileProvider.PHOTO));
        start(camera.addFlags(Intent.FLAG_GRANT_WRITE_URI_PERMISSION), TAKE);
    }

    private void start(Intent intent, int request) {
        try {
            startActivityForResult(intent, request);
        } catch (ActivityNotFoundException error) {
            captionView.setText(R.string.no_other_app);
        }
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        if (result != RESULT_OK) {
            return;
        }
        if (request == TAKE) {
            say(FileProvider.uri(FileProvider.PHOTO));
        } else if (data != null && data.getData() != null) {
            say(data.getData());
        }
    }

    private void say(Uri photo) {
        int number = ++asked;
        caption = "";
        wordsView.removeAllViews();
        noAttentionView.setVisibility(View.GONE);
        shareBar.setVisibility(View.GONE);
        photoView.setImageBitmap(null);
        photoView.show(null);
        captionView.setText(R.string.looking);
        Context context = getApplicationContext();
        Worker.run(() -> look(context, photo, number), said -> show(said, number), error -> {
            if (number == asked) {
                captionView.setText(Sentences.of(this, error));
            }
        });
    }

    /** On the worker's thread: the caption of a photo, or null when another was asked for meanwhile. */
    private Said look(Context context, Uri photo, int number) throws IOException {
        if (number != asked) {
            return null;
        }
        Models models = Models.get(context);
        byte[] content;
        try (InputStream stream = context.getContentResolver().openInputStream(photo)) {
            content = PhotoFile.read(Objects.requireNonNull(stream, "the other app gave no photo"), "the photo");
        } catch (CapPruneException error) {
            throw error;
        } catch (IOException | RuntimeException error) { // other apps send any
            throw new CapPruneException(ErrorKind.PHOTO, "a photo cannot be read").found(error.getMessage());
        }
        Pixels pixels = Photo.decode(content, "the photo");
        byte[] square = Squash.squash(pixels, models.bundle.manifest().photoSize());
        Caption said = models.captioner.caption(
                square, models.bundle.manifest().decoding().beam(), () -> number != asked);
        if (said == null) {
            return null;
        }
        String[] words = models.bundle.vocabulary().shown(said.tokens()).toArray(new String[0]);
        boolean unsure = Boolean.TRUE.equals(Confidence.isUnsure(said, models.lowBelow));
        return new Said(Photo.preview(pixels), said, unsure, words);
    }

    private void show(Said said, int number) {
        if (said == null || number != asked) {
            return;
        }
        boolean unfamiliar = Boolean.FALSE.equals(said.caption.familiar());
        caption = unfamiliar ? getString(R.string.unfamiliar) : said.caption.text();
        photoView.setImageBitmap(said.preview);
        photoView.setContentDescription(caption);
        // A live region: screen readers say it.
        captionView.setText(said.unsure && !unfamiliar ? getString(R.string.not_sure, caption) : caption);
        if (unfamiliar) {
            return; // its words are not shown, so there is nothing to share and nowhere to look
        }
        shareBar.setVisibility(View.VISIBLE);
        List<float[]> looked = said.caption.attention();
        if (looked == null) {
            noAttentionView.setVisibility(View.VISIBLE);
            return;
        }
        for (int n = 0; n < said.words.length; n++) {
            float[] attention = looked.get(n);
            Button word = new Button(this);
            word.setText(said.words[n]);
            word.setAllCaps(false);
            word.setContentDescription(getString(R.string.show_where, said.words[n]));
            word.setOnClickListener(view -> photoView.show(attention));
            wordsView.addView(word);
        }
    }

    private void share() {
        Intent text = new Intent(Intent.ACTION_SEND).setType("text/plain").putExtra(Intent.EXTRA_TEXT, caption);
        startActivity(Intent.createChooser(text, null));
    }

    private void copy() {
        ClipboardManager clipboard = (ClipboardManager) getSystemService(CLIPBOARD_SERVICE);
        clipboard.setPrimaryClip(ClipData.newPlainText(getString(R.string.app_name), caption));
        captionView.announceForAccessibility(getString(R.string.copied));
    }
}
