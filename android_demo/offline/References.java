import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.tree.AbstractInsnNode;
import org.objectweb.asm.tree.ClassNode;
import org.objectweb.asm.tree.FieldInsnNode;
import org.objectweb.asm.tree.FieldNode;
import org.objectweb.asm.tree.MethodInsnNode;
import org.objectweb.asm.tree.MethodNode;

/**
 * Lists what classes use of the platform: {@code java References.java CLASSES.jar PLATFORM.jar…}.
 *
 * <p>One line for each use: the class and member where it is declared, a tab, and the class that uses it. A member that
 * no platform jar has is listed with {@code MISSING} in front.
 */
public final class References {
    private final Map<String, ClassNode> own;
    private final Map<String, ClassNode> platform = new HashMap<>();
    private final TreeSet<String> lines = new TreeSet<>();

    private References(Map<String, ClassNode> own) {
        this.own = own;
    }

    public static void main(String[] arguments) throws IOException {
        References references = new References(read(arguments[0]));
        for (int n = 1; n < arguments.length; n++) {
            references.platform.putAll(read(arguments[n]));
        }
        references.own.values().forEach(references::list);
        references.lines.forEach(System.out::println);
    }

    private static Map<String, ClassNode> read(String jar) throws IOException {
        Map<String, ClassNode> types = new HashMap<>();
        try (JarFile file = new JarFile(new File(jar))) {
            for (JarEntry entry : java.util.Collections.list(file.entries())) {
                if (entry.getName().endsWith(".class")) {
                    ClassNode type = new ClassNode();
                    new ClassReader(file.getInputStream(entry).readAllBytes()).accept(type, ClassReader.SKIP_FRAMES);
                    types.put(type.name, type);
                }
            }
        }
        return types;
    }

    private void list(ClassNode type) {
        for (MethodNode method : type.methods) {
            for (AbstractInsnNode instruction : method.instructions) {
                if (instruction instanceof MethodInsnNode call && !call.owner.startsWith("[")) {
                    list(type, call.owner, call.name, call.desc, true);
                } else if (instruction instanceof FieldInsnNode field) {
                    list(type, field.owner, field.name, field.desc, false);
                }
            }
        }
    }

    private void list(ClassNode user, String owner, String name, String descriptor, boolean method) {
        String declaring = declaring(owner, name, descriptor, method);
        if (declaring == null) {
            lines.add("MISSING " + owner + "." + name + (method ? "" : ":") + descriptor + "\t" + user.name);
        } else if (!own.containsKey(declaring)) {
            lines.add(declaring + "." + name + (method ? "" : ":") + descriptor + "\t" + user.name);
        }
    }

    /** Where a member stands that a class has or inherits; null where nowhere. */
    private String declaring(String owner, String name, String descriptor, boolean method) {
        ClassNode type = own.getOrDefault(owner, platform.get(owner));
        if (type == null) {
            return null;
        }
        for (MethodNode one : method ? type.methods : new ArrayList<MethodNode>()) {
            if (one.name.equals(name) && one.desc.equals(descriptor)) {
                return owner;
            }
        }
        for (FieldNode one : method ? new ArrayList<FieldNode>() : type.fields) {
            if (one.name.equals(name) && one.desc.equals(descriptor)) {
                return owner;
            }
        }
        List<String> above = new ArrayList<>(type.interfaces);
        if (type.superName != null) {
            above.add(0, type.superName);
        }
        if (above.isEmpty() || (type.access & 0x200) != 0) {
            above.add("java/lang/Object");
        }
        for (String one : above) {
            String found = owner.equals("java/lang/Object") ? null : declaring(one, name, descriptor, method);
            if (found != null) {
                return found;
            }
        }
        return null;
    }
}
