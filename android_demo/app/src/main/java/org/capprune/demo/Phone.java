package org.capprune.demo;

import android.content.Context;
import android.os.Build;
import android.os.PowerManager;
import org.capprune.core.measure.Host;

/** What Android tells of this device. */
record Phone(Context context, String standIn) implements Host {
    private static final int FIRST_WITH_THERMAL_STATUS = 29;

    @Override
    public String os() {
        return "Android " + Build.VERSION.RELEASE + " (API " + Build.VERSION.SDK_INT + ")";
    }

    @Override
    public String model() {
        return Build.MANUFACTURER + " " + Build.MODEL;
    }

    @Override
    public Integer thermalStatus() {
        if (Build.VERSION.SDK_INT < FIRST_WITH_THERMAL_STATUS) {
            return null;
        }
        return ((PowerManager) context.getSystemService(Context.POWER_SERVICE)).getCurrentThermalStatus();
    }
}
