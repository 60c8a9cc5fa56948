package org.capprune.demo;

import android.os.Handler;
import android.os.Looper;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Consumer;

/** Work off the main thread, one thing at a time, as a captioner wants it; answers come back on the main thread. */
final class Worker {
    private static final ExecutorService THREAD = Executors.newSingleThreadExecutor();
    private static final Handler MAIN = new Handler(Looper.getMainLooper());

    private Worker() {}

    /** Do some work, then tell what came of it, or what went wrong: low memory and missing libraries too. */
    static <T> void run(Callable<T> work, Consumer<T> answer, Consumer<Throwable> trouble) {
        THREAD.execute(() -> {
            try {
                T result = work.call();
                tell(() -> answer.accept(result));
            } catch (Exception | OutOfMemoryError | LinkageError error) {
                tell(() -> trouble.accept(error));
            }
        });
    }

    /** Do something on the main thread. */
    static void tell(Runnable action) {
        MAIN.post(action);
    }
}
