import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.Opcodes;
import org.objectweb.asm.Type;
import org.objectweb.asm.tree.AbstractInsnNode;
import org.objectweb.asm.tree.ClassNode;
import org.objectweb.asm.tree.FieldNode;
import org.objectweb.asm.tree.InsnList;
import org.objectweb.asm.tree.InsnNode;
import org.objectweb.asm.tree.InvokeDynamicInsnNode;
import org.objectweb.asm.tree.JumpInsnNode;
import org.objectweb.asm.tree.LabelNode;
import org.objectweb.asm.tree.FieldInsnNode;
import org.objectweb.asm.tree.IntInsnNode;
import org.objectweb.asm.tree.LdcInsnNode;
import org.objectweb.asm.tree.MethodInsnNode;
import org.objectweb.asm.tree.MethodNode;
import org.objectweb.asm.tree.TypeInsnNode;
import org.objectweb.asm.tree.VarInsnNode;

/**
 * Lowers classes of Java 17 to version 52, as far as ProGuard 6, which does the rest, does not know them: records, nest
 * mates, sealed types.
 *
 * <p>{@code java Lower.java CLASSES OUT dex|jvm}. The real build needs none of this: D8 does it.
 */
public final class Lower {
    private static final String RECORD = "java/lang/Record";
    private static final String OBJECT = "java/lang/Object";

    private Lower() {}

    public static void main(String[] arguments) throws IOException {
        Path classes = Path.of(arguments[0]);
        Path out = Path.of(arguments[1]);
        List<Path> files;
        try (Stream<Path> found = Files.walk(classes)) {
            files = found.filter(Files::isRegularFile).sorted().collect(Collectors.toList());
        }
        for (Path file : files) {
            Path place = out.resolve(classes.relativize(file).toString());
            Files.createDirectories(place.getParent());
            byte[] content = Files.readAllBytes(file);
            boolean isClass = file.toString().endsWith(".class"); // others are resources
            Files.write(place, isClass ? lower(content, arguments[2].equals("dex")) : content);
        }
    }

    private static byte[] lower(byte[] content, boolean forDex) {
        ClassNode type = new ClassNode();
        new ClassReader(content).accept(type, ClassReader.SKIP_FRAMES);
        type.version = Opcodes.V1_8;
        type.nestHostClass = null;
        type.nestMembers = null;
        type.permittedSubclasses = null;
        if (RECORD.equals(type.superName)) {
            type.superName = OBJECT;
            type.access &= ~Opcodes.ACC_RECORD;
            type.recordComponents = null;
            type.methods.forEach(method -> lowerRecordMethod(type, method));
        }
        type.fields.forEach(field -> field.access &= ~Opcodes.ACC_PRIVATE);
        type.methods.forEach(method -> open(type, method));
        if (forDex) {
            type.methods.forEach(Lower::callInterfacesLikeClasses);
        }
        ClassWriter writer = new ClassWriter(ClassWriter.COMPUTE_MAXS);
        type.accept(writer);
        return writer.toByteArray();
    }

    /** Nest mates see each other's private members; before Java 11 they must be open to the package for that. */
    private static void open(ClassNode type, MethodNode method) {
        boolean isInterface = (type.access & Opcodes.ACC_INTERFACE) != 0;
        if ((method.access & Opcodes.ACC_PRIVATE) != 0 && !isInterface) {
            method.access &= ~Opcodes.ACC_PRIVATE;
            if ((method.access & Opcodes.ACC_STATIC) == 0 && !method.name.equals("<init>")) {
                method.access |= Opcodes.ACC_FINAL;
            }
        }
    }

    /** Static methods of interfaces: a dex file names them as those of classes, and the dexer knows no other form. */
    private static void callInterfacesLikeClasses(MethodNode method) {
        for (AbstractInsnNode instruction : method.instructions) {
            if (instruction instanceof MethodInsnNode call && call.getOpcode() == Opcodes.INVOKESTATIC) {
                call.itf = false;
            }
        }
    }

    private static void lowerRecordMethod(ClassNode type, MethodNode method) {
        for (AbstractInsnNode instruction : method.instructions) {
            if (instruction instanceof MethodInsnNode call && call.owner.equals(RECORD)) {
                call.owner = OBJECT; // the constructor above
            }
            if (instruction instanceof InvokeDynamicInsnNode call
                    && call.bsm.getOwner().equals("java/lang/runtime/ObjectMethods")) {
                method.instructions = body(type, method.name);
                return;
            }
        }
    }

    /** The method that the JVM would make when it is first called: over the array of all components. */
    private static InsnList body(ClassNode type, String method) {
        InsnList code = new InsnList();
        if (method.equals("equals")) {
            LabelNode same = new LabelNode();
            code.add(new VarInsnNode(Opcodes.ALOAD, 1));
            code.add(new TypeInsnNode(Opcodes.INSTANCEOF, type.name));
            code.add(new JumpInsnNode(Opcodes.IFNE, same));
            code.add(new InsnNode(Opcodes.ICONST_0));
            code.add(new InsnNode(Opcodes.IRETURN));
            code.add(same);
            components(code, type, 0);
            components(code, type, 1);
            arrays(code, "equals", "([Ljava/lang/Object;[Ljava/lang/Object;)Z");
            code.add(new InsnNode(Opcodes.IRETURN));
        } else if (method.equals("hashCode")) {
            components(code, type, 0);
            arrays(code, "hashCode", "([Ljava/lang/Object;)I");
            code.add(new InsnNode(Opcodes.IRETURN));
        } else {
            code.add(new LdcInsnNode(type.name.substring(type.name.lastIndexOf('/') + 1)));
            components(code, type, 0);
            arrays(code, "toString", "([Ljava/lang/Object;)Ljava/lang/String;");
            code.add(new MethodInsnNode(Opcodes.INVOKEVIRTUAL, "java/lang/String", "concat",
                    "(Ljava/lang/String;)Ljava/lang/String;"));
            code.add(new InsnNode(Opcodes.ARETURN));
        }
        return code;
    }

    private static void arrays(InsnList code, String method, String descriptor) {
        code.add(new MethodInsnNode(Opcodes.INVOKESTATIC, "java/util/Arrays", method, descriptor));
    }

    /** An array of the fields of the record in a variable, boxed. */
    private static void components(InsnList code, ClassNode type, int variable) {
        List<FieldNode> fields = type.fields.stream()
                .filter(field -> (field.access & Opcodes.ACC_STATIC) == 0).collect(Collectors.toList());
        code.add(new IntInsnNode(Opcodes.SIPUSH, fields.size()));
        code.add(new TypeInsnNode(Opcodes.ANEWARRAY, OBJECT));
        for (int n = 0; n < fields.size(); n++) {
            FieldNode field = fields.get(n);
            code.add(new InsnNode(Opcodes.DUP));
            code.add(new IntInsnNode(Opcodes.SIPUSH, n));
            code.add(new VarInsnNode(Opcodes.ALOAD, variable));
            code.add(new TypeInsnNode(Opcodes.CHECKCAST, type.name));
            code.add(new FieldInsnNode(Opcodes.GETFIELD, type.name, field.name, field.desc));
            box(code, Type.getType(field.desc));
            code.add(new InsnNode(Opcodes.AASTORE));
        }
    }

    private static void box(InsnList code, Type type) {
        String boxed = switch (type.getSort()) {
            case Type.BOOLEAN -> "java/lang/Boolean";
            case Type.INT -> "java/lang/Integer";
            case Type.LONG -> "java/lang/Long";
            case Type.DOUBLE -> "java/lang/Double";
            case Type.FLOAT -> "java/lang/Float";
            case Type.OBJECT, Type.ARRAY -> null;
            default -> throw new IllegalArgumentException("a record with a component of type " + type);
        };
        if (boxed != null) {
            String descriptor = "(" + type.getDescriptor() + ")L" + boxed + ";";
            code.add(new MethodInsnNode(Opcodes.INVOKESTATIC, boxed, "valueOf", descriptor));
        }
    }
}
