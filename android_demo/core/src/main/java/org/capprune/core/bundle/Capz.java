package org.capprune.core.bundle;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.SortedMap;
import java.util.SortedSet;
import java.util.TreeMap;
import java.util.TreeSet;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Printable;

/**
 * The packed bundle, {@code .capz}: one file that expands to exactly the bytes of a bundle's files, one by one when they
 * are read. docs/bundle_format.md, section 8, is the specification.
 */
final class Capz implements Members {
    private static final String MAGIC = "CAPZ";
    private static final int VERSION = 1;
    private static final long MOST_BYTES = 1L << 30; // of the file, and of what it expands to
    private static final int MOST_HEADER_BYTES = 1 << 16;
    private static final int MOST_MEMBERS = 256; // as a folder may hold
    private static final int PREAMBLE_BYTES = 20; // magic, version, bytes of the file, bytes of the header
    private static final int DIGEST_BYTES = 32;
    private static final int MEMBER_BYTES = 9 + DIGEST_BYTES; // behind the name: coding, size, stored size, SHA-256
    private static final int ZLIB = 1;
    private static final int PIECES = 2;

    private final String place;
    private final SortedMap<String, Member> members = new TreeMap<>();

    /** One file, packed. */
    private record Member(int coding, long size, ByteBuffer section, byte[] digest) {}

    private final long packedBytes;

    private Capz(String place, long packedBytes) {
        this.place = place;
        this.packedBytes = packedBytes;
    }

    @Override
    public long packedBytes() {
        return packedBytes;
    }

    /** Read a packed bundle and check its structure; {@link BundleVerifier} checks what is in it. */
    static Capz open(File file) {
        if (file.length() > MOST_BYTES) {
            throw new CapPruneException(ErrorKind.BUNDLE, "a file of the bundle is too large").at(file)
                    .expected("at most " + MOST_BYTES + " bytes").found(file.length() + " bytes");
        }
        return open(FolderMembers.readWhole(file), file.getPath());
    }

    /** The same of bytes; {@code place} is the file's name, for messages. */
    static Capz open(byte[] data, String place) {
        Capz capz = new Capz(place, data.length);
        try {
            capz.readContainer(data);
        } catch (CapPruneException error) {
            throw error.inside(place);
        }
        return capz;
    }

    @Override
    public String place() {
        return place;
    }

    @Override
    public SortedSet<String> names(int cap) {
        if (members.size() > cap) {
            throw bad("a bundle holds too many files").at(place).expected("at most " + cap).found(members.size());
        }
        return new TreeSet<>(members.keySet());
    }

    @Override
    public byte[] read(String name, long capBytes) {
        Member member = members.get(name);
        if (member == null) {
            throw new CapPruneException(ErrorKind.MISSING_FILE, "a file of the bundle is missing").at(where(name));
        }
        if (member.size > capBytes) {
            throw bad("a file of the bundle is too large").at(where(name)).expected("at most " + capBytes + " bytes")
                    .found(member.size + " bytes");
        }
        byte[] content;
        try {
            content = member.coding == ZLIB
                    ? Inflated.exactly(member.section, (int) member.size, "zlib")
                    : CapzPieces.expand(member.section, (int) member.size, this::words);
        } catch (CapPruneException error) {
            throw error.inside(where(name));
        }
        if (!Arrays.equals(BundleVerifier.sha256(content, 0, content.length), member.digest)) {
            throw new CapPruneException(
                    ErrorKind.HASH_MISMATCH, "a file of the packed bundle does not expand to what was packed")
                    .at(where(name));
        }
        return content;
    }

    /** The vocabulary, which a model file may refer to. */
    private byte[] words() {
        return read(BundleFiles.VOCABULARY, BundleFiles.mostBytes(BundleFiles.VOCABULARY));
    }

    private void readContainer(byte[] data) {
        if (data.length < PREAMBLE_BYTES + DIGEST_BYTES
                || !new String(data, 0, MAGIC.length(), StandardCharsets.ISO_8859_1).equals(MAGIC)) {
            throw bad("this is no packed bundle").expected("a file that starts with " + MAGIC);
        }
        ByteBuffer preamble = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN);
        long version = preamble.getInt(4) & 0xFFFFFFFFL;
        long size = preamble.getLong(8);
        long headerBytes = preamble.getInt(16) & 0xFFFFFFFFL;
        if (version > VERSION) {
            throw new CapPruneException(ErrorKind.NEWER_FORMAT, "the packed bundle was written by a later capprune")
                    .expected("at most version " + VERSION).found(version).hint("take a later version of this app");
        }
        if (version != VERSION) {
            throw bad("the packed bundle has an impossible version").expected(VERSION).found(version);
        }
        if (size != data.length) {
            throw bad("the packed bundle is cut off, or followed by other bytes").expected(size + " bytes")
                    .found(data.length + " bytes");
        }
        int end = data.length - DIGEST_BYTES;
        if (!Arrays.equals(BundleVerifier.sha256(data, 0, end), Arrays.copyOfRange(data, end, data.length))) {
            throw new CapPruneException(ErrorKind.HASH_MISMATCH, "the packed bundle is not the one that was written")
                    .hint("copy or download it again");
        }
        int content = end - PREAMBLE_BYTES;
        if (headerBytes < 1 || headerBytes > Math.min(MOST_HEADER_BYTES, content)) {
            throw bad("size of the header").expected("at most " + MOST_HEADER_BYTES + " bytes").found(headerBytes);
        }
        int sections = PREAMBLE_BYTES + (int) headerBytes;
        readHeader(part(data, PREAMBLE_BYTES, sections), part(data, sections, end));
    }

    /** The bytes from {@code from} to before {@code to}. */
    private static ByteBuffer part(byte[] data, int from, int to) {
        return ByteBuffer.wrap(data, from, to - from).slice().order(ByteOrder.LITTLE_ENDIAN);
    }

    private void readHeader(ByteBuffer header, ByteBuffer sections) {
        String last = "";
        long total = 0;
        int section = 0;
        while (header.hasRemaining()) {
            String name = name(header);
            if (name.compareTo(last) <= 0) {
                throw bad("names of the header must rise").at(name);
            }
            if (header.remaining() < MEMBER_BYTES) {
                throw bad("the header is cut off").at(name);
            }
            int coding = header.get() & 0xFF;
            long size = header.getInt() & 0xFFFFFFFFL;
            long stored = header.getInt() & 0xFFFFFFFFL;
            byte[] digest = new byte[DIGEST_BYTES];
            header.get(digest);
            if (coding != ZLIB && coding != PIECES) {
                throw bad("unknown coding of a file").at(name).expected("1 or 2").found(coding);
            }
            if (coding == PIECES && !BundleFiles.isModel(name)) { // slow to expand, and there may be 256 files
                throw bad("only model files may be in pieces").at(name).expected(ZLIB).found(coding);
            }
            total += size;
            last = name;
            if (total > MOST_BYTES || members.size() >= MOST_MEMBERS) {
                throw bad("the packed bundle would expand to too much").at(name)
                        .expected("at most " + MOST_BYTES + " bytes in " + MOST_MEMBERS + " files");
            }
            if (stored > sections.capacity() - section) {
                throw bad("a section lies behind the end of the file").at(name).found(stored + " bytes");
            }
            byte[] content = sections.array();
            int start = sections.arrayOffset() + section;
            members.put(name, new Member(coding, size, part(content, start, start + (int) stored), digest));
            section += (int) stored;
        }
        BundleCosts.checkExpansion(packedBytes, total);
        if (section != sections.capacity()) {
            throw bad("bytes of the packed bundle belong to no file").found(sections.capacity() - section + " bytes");
        }
    }

    private static String name(ByteBuffer header) {
        int length = header.get() & 0xFF;
        byte[] raw = new byte[Math.min(length, header.remaining())];
        header.get(raw);
        String name = new String(raw, StandardCharsets.ISO_8859_1);
        if (raw.length != length || !(name.equals(Manifest.NAME) || BundleFiles.isAllowed(name))) {
            throw bad("a packed bundle holds a file that is not of the format").at(Printable.ascii(name));
        }
        return name;
    }

    private static CapPruneException bad(String what) {
        return new CapPruneException(ErrorKind.BUNDLE, what);
    }
}
