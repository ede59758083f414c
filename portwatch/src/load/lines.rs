//! Which lines of source the programs come from: the verifier quotes them where it refuses one. The build
//! script uses this file too.

/// .BTF.ext without information about lines. Nothing if it is not laid out as LLVM does it: functions,
/// then lines, then the relocations of CO-RE, of which Rust has none (lib/Target/BPF/BTFDebug.cpp,
/// `emitBTFExtSection`).
#[must_use]
pub(crate) fn without_lines(data: &[u8]) -> Option<Vec<u8>> {
    // struct btf_ext_header (tools/lib/bpf/libbpf_internal.h): four bytes, then these.
    let word = |index: usize| {
        let bytes = data.get(4 + 4 * index..8 + 4 * index)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes) as usize)
    };
    let (header, functions, functions_len, lines) = (word(0)?, word(1)?, word(2)?, word(3)?);
    let relocations_len = word(6)?;
    if header < 32 || functions + functions_len > lines || relocations_len != 0 {
        return None;
    }
    let mut kept = data.get(..header + lines)?.to_vec();
    // How many bytes of lines; where relocations are, and how many bytes.
    kept[20..32].fill(0);
    Some(kept)
}
