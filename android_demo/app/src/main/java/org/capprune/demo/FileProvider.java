package org.capprune.demo;

import android.content.ContentProvider;
import android.content.ContentValues;
import android.database.Cursor;
import android.net.Uri;
import android.os.ParcelFileDescriptor;
import java.io.File;
import java.io.FileNotFoundException;

/** Two files that other apps may be let at: the photo that the camera writes, and results to share. */
public final class FileProvider extends ContentProvider {
    static final String PHOTO = "photo.jpg";
    static final String RESULTS = "results.json";

    private static final String AUTHORITY = "org.capprune.demo.files";

    static Uri uri(String name) {
        return Uri.parse("content://" + AUTHORITY + "/" + name);
    }

    @Override
    public ParcelFileDescriptor openFile(Uri uri, String mode) throws FileNotFoundException {
        String name = uri.getLastPathSegment();
        if (!PHOTO.equals(name) && !RESULTS.equals(name)) {
            throw new FileNotFoundException(String.valueOf(uri));
        }
        return ParcelFileDescriptor.open(
                new File(getContext().getCacheDir(), name), ParcelFileDescriptor.parseMode(mode));
    }

    @Override
    public String getType(Uri uri) {
        return PHOTO.equals(uri.getLastPathSegment()) ? "image/jpeg" : "application/json";
    }

    @Override
    public boolean onCreate() {
        return true;
    }

    @Override
    public Cursor query(Uri uri, String[] columns, String selection, String[] arguments, String order) {
        return null;
    }

    @Override
    public Uri insert(Uri uri, ContentValues values) {
        return null;
    }

    @Override
    public int update(Uri uri, ContentValues values, String selection, String[] arguments) {
        return 0;
    }

    @Override
    public int delete(Uri uri, String selection, String[] arguments) {
        return 0;
    }
}
