package org.capprune.core.measure;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.capprune.core.Json;
import org.capprune.core.Printable;
import org.capprune.core.caption.Interpreter;

/**
 * Where something was measured: {@code environment} of docs/results_schema.md. Android hides many of the kernel's files
 * from apps; what cannot be read is null.
 */
public final class Environment {
    private static final String CPUS = "/sys/devices/system/cpu/";
    private static final String ZONES = "/sys/class/thermal";
    private static final long BYTES_PER_KIB = 1024;

    private final Host host;
    private final String cpuinfo = text("/proc/cpuinfo");

    public Environment(Host host) {
        this.host = host;
    }

    /** What changes while something runs: now. */
    public Map<String, Object> moment() {
        String load = text("/proc/loadavg");
        Integer status = host.thermalStatus();
        return Json.object(
                "temperature_c", temperature(),
                "frequency_khz", frequencies(),
                "throttled_flags", null,
                "throttle_count", number(CPUS + "cpu0/thermal_throttle/core_throttle_count"),
                "thermal_status", status == null ? null : (Object) status.longValue(),
                "load_average", load == null ? null : (Object) Double.parseDouble(load.substring(0, load.indexOf(' '))));
    }

    /** The whole section. */
    Map<String, Object> describe(
            Interpreter.Engine engine, int threads, Map<String, Object> before, Map<String, Object> after) {
        String machine = machine();
        return Json.object(
                "platform", System.getProperty("os.name") + " " + System.getProperty("os.version").split("-", 2)[0],
                "os", host.os(),
                "model", host.model(),
                "machine", machine,
                "cpu_model", cpuModel(),
                "cpu_part", cpuPart(),
                "cpu_count", Runtime.getRuntime().availableProcessors(),
                "memory_bytes", kibibytes("/proc/meminfo", "MemTotal"),
                "governor", text(CPUS + "cpu0/cpufreq/scaling_governor"),
                "frequency_khz", limits(),
                "python", null,
                "runtime", engine.name(),
                "runtime_version", engine.version(),
                "threads", threads,
                "emulated", isEmulated(machine),
                "stand_in", host.standIn(),
                "before", before,
                "after", after);
    }

    /** The most memory that this process has held at once, or null. */
    static Long peakBytes() {
        return kibibytes("/proc/self/status", "VmHWM");
    }

    private static String machine() {
        String machine = System.getProperty("os.arch");
        return machine.equals("amd64") ? "x86_64" : machine;
    }

    /** Whether /proc/cpuinfo tells of another kind of processor than this process runs on. */
    private boolean isEmulated(String machine) {
        if (System.getenv("QEMU_CPU") != null) {
            return true;
        }
        boolean arm = machine.startsWith("aarch64") || machine.startsWith("arm");
        return !fields(arm ? "vendor_id" : "CPU implementer").isEmpty();
    }

    private String cpuModel() {
        for (String key : new String[] {"model name", "Model", "Hardware"}) {
            for (String value : fields(key)) {
                return value;
            }
        }
        return "unknown";
    }

    /** ARM's implementer and part of every kind of core, each once. */
    private String cpuPart() {
        List<String> implementers = fields("CPU implementer");
        List<String> parts = fields("CPU part");
        Set<String> kinds = new LinkedHashSet<>();
        for (int n = 0; n < Math.min(implementers.size(), parts.size()); n++) {
            kinds.add(implementers.get(n) + "/" + parts.get(n));
        }
        return kinds.isEmpty() ? null : Printable.list(kinds);
    }

    /** The values of a key of /proc/cpuinfo. */
    private List<String> fields(String key) {
        List<String> values = new ArrayList<>();
        for (String line : cpuinfo == null ? new String[0] : cpuinfo.split("\n")) {
            int colon = line.indexOf(':');
            if (colon > 0 && line.substring(0, colon).trim().equals(key) && !line.substring(colon + 1).trim().isEmpty()) {
                values.add(line.substring(colon + 1).trim());
            }
        }
        return values;
    }

    private static Object temperature() {
        Double hottest = null;
        String[] zones = new File(ZONES).list();
        for (String zone : zones == null ? new String[0] : zones) {
            Long millidegrees = number(ZONES + "/" + zone + "/temp");
            if (millidegrees != null && millidegrees > 0) {
                hottest = Math.max(hottest == null ? 0 : hottest, millidegrees / 1000.0);
            }
        }
        return hottest;
    }

    private static Object frequencies() {
        List<Object> clocks = new ArrayList<>();
        for (int cpu = 0; cpu < Runtime.getRuntime().availableProcessors(); cpu++) {
            Long clock = number(CPUS + "cpu" + cpu + "/cpufreq/scaling_cur_freq");
            if (clock != null) {
                clocks.add(clock);
            }
        }
        return clocks.isEmpty() ? null : clocks;
    }

    private static Object limits() {
        Long low = number(CPUS + "cpu0/cpufreq/cpuinfo_min_freq");
        Long high = number(CPUS + "cpu0/cpufreq/cpuinfo_max_freq");
        return low == null || high == null ? null : java.util.Arrays.asList(low, high);
    }

    /** A line like {@code VmHWM:  1234 kB} in bytes; null where there is none. */
    private static Long kibibytes(String file, String key) {
        String content = text(file);
        for (String line : content == null ? new String[0] : content.split("\n")) {
            if (line.startsWith(key + ":")) {
                return Long.parseLong(line.replaceAll("[^0-9]", "")) * BYTES_PER_KIB;
            }
        }
        return null;
    }

    private static Long number(String file) {
        String content = text(file);
        return content != null && content.matches("-?[0-9]{1,18}") ? Long.valueOf(content) : null;
    }

    /** A short file of the kernel's, trimmed; null where it cannot be read or is empty. */
    private static String text(String file) {
        try (InputStream stream = new FileInputStream(file)) {
            ByteArrayOutputStream content = new ByteArrayOutputStream();
            byte[] part = new byte[4096];
            for (int count = stream.read(part); count > 0; count = stream.read(part)) {
                content.write(part, 0, count);
            }
            String text = new String(content.toByteArray(), StandardCharsets.UTF_8).trim();
            return text.isEmpty() ? null : text;
        } catch (IOException error) {
            return null;
        }
    }
}
