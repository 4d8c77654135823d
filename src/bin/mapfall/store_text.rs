//! What the store's commands have in common in what they show to people.

use std::fmt::Write;

use mapfall::workload::size::ByteSize;

/// Columns of the names of what is shown.
const NAME_COLUMNS: usize = 20;
/// More bytes of the embedder's are not shown.
const BYTES_SHOWN: usize = 64;

/// A line of a table: what it is, and what it has.
pub(crate) fn row(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:NAME_COLUMNS$}{value}");
}

/// `4.0 MiB (4198400 bytes)`, or `4 KiB` where that is exact.
pub(crate) fn size(bytes: u64) -> String {
    let exact = ByteSize::new(bytes).to_string();
    let is_short = bytes < 1024 || !exact.ends_with(" B") && exact.len() < "1024 KiB".len();
    if is_short { exact } else { format!("{} ({bytes} bytes)", ByteSize::new(bytes).rounded()) }
}

/// `1 page`, `2 pages`.
pub(crate) fn count(number: u64, of: &str) -> String {
    if number == 1 { format!("1 {of}") } else { format!("{number} {of}s") }
}

/// Bytes of the embedder's, as text as far as they are.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(BYTES_SHOWN)];
    let more = if shown.len() < bytes.len() { "..." } else { "" };
    match bytes.len() {
        0 => "none".to_owned(),
        len => format!("\"{}\"{more} ({})", shown.escape_ascii(), count(len as u64, "byte")),
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The UUID as it is usually written.
pub(crate) fn uuid(uuid: [u8; 16]) -> String {
    uuid::Uuid::from_bytes(uuid).to_string()
}

/// 16 bytes a line: their offset, hexadecimal and as text. Lines that are as the one before are a `*`.
pub(crate) fn hex_dump(bytes: &[u8]) -> String {
    let (mut text, mut before, mut is_starred) = (String::new(), None, false);
    for (line, offset) in bytes.chunks(16).zip((0_usize..).step_by(16)) {
        if before == Some(line) {
            if !is_starred {
                text += "*\n";
            }
            is_starred = true;
            continue;
        }
        (before, is_starred) = (Some(line), false);
        let halves = line.chunks(8).map(|half| half.iter().map(|byte| format!(" {byte:02x}")).collect::<String>());
        let hex = halves.collect::<Vec<_>>().join(" ");
        let characters = line.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' });
        let _ = writeln!(text, "{offset:08x} {hex:49}  |{}|", characters.collect::<String>());
    }
    let _ = writeln!(text, "{:08x}", bytes.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact_where_that_is_short() {
        assert_eq!([0, 5, 512, 1023, 4096, 1 << 20].map(size), ["0 B", "5 B", "512 B", "1023 B", "4 KiB", "1 MiB"]);
        assert_eq!(size(4_198_400), "4.0 MiB (4198400 bytes)");
        assert_eq!(size(1025), "1.0 KiB (1025 bytes)");
    }

    #[test]
    fn bytes_are_shown_as_text_and_cut() {
        assert_eq!(bytes(b""), "none");
        assert_eq!(bytes(b"a\"\n\x1b"), "\"a\\\"\\n\\x1b\" (4 bytes)");
        assert_eq!(bytes(&[b'x'; 100]), format!("\"{}\"... (100 bytes)", "x".repeat(64)));
        assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
    }

    #[test]
    fn a_hex_dump_leaves_out_what_repeats() {
        let mut bytes = b"0123456789abcdef".to_vec();
        bytes.extend([0; 48]);
        bytes.extend([0xff, b'z']);
        assert_eq!(
            hex_dump(&bytes),
            "00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|\n\
             00000010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n\
             *\n\
             00000040  ff 7a                                             |.z|\n\
             00000042\n"
        );
    }
}
