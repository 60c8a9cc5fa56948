package org.capprune.demo;

import android.content.Context;
import android.graphics.Canvas;
import android.graphics.Paint;
import android.util.AttributeSet;
import android.widget.ImageView;

/** A photo, and over it where the model looked for one word: the more, the brighter. */
public final class AttentionView extends ImageView {
    private static final int MOST_ALPHA = 176;
    private static final int GLOW = 0xFFD54F;

    private final Paint paint = new Paint();
    private float[] attention;

    public AttentionView(Context context, AttributeSet attributes) {
        super(context, attributes);
    }

    /** Show where the model looked, or nothing over the photo when null. Regions are a square grid, row by row. */
    void show(float[] regions) {
        attention = regions;
        invalidate();
    }

    @Override
    protected void onDraw(Canvas canvas) {
        super.onDraw(canvas);
        int side = attention == null ? 0 : (int) Math.round(Math.sqrt(attention.length));
        if (side == 0 || side * side != attention.length) {
            return;
        }
        float largest = Float.MIN_NORMAL;
        for (float weight : attention) {
            largest = Math.max(largest, weight);
        }
        float width = getWidth() / (float) side;
        float height = getHeight() / (float) side;
        for (int region = 0; region < attention.length; region++) {
            float left = region % side * width;
            float top = region / side * height;
            paint.setColor(GLOW | Math.round(MOST_ALPHA * attention[region] / largest) << 24);
            canvas.drawRect(left, top, left + width, top + height, paint);
        }
    }
}
