//! What an errno of connect() means.

/// Bits by errno: a table, for the reason that `sock::PROTOCOLS` is one.
#[expect(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
#[unsafe(no_mangle)]
static MEANINGS: [u8; 1024] = {
    let mut table = [0u8; 1024];
    let mut number = 0;
    while number < table.len() {
        table[number] = match number {
            // EINTR, EALREADY, EINPROGRESS; ERESTARTSYS to ERESTARTNOHAND and ERESTART_RESTARTBLOCK
            // (include/linux/errno.h)
            4 | 114 | 115 | 512..=516 => GOES_ON,
            // EPIPE (reset after the peer's FIN), ECONNABORTED, ECONNRESET, ETIMEDOUT, ECONNREFUSED
            32 | 103 | 104 | 110 | 111 => ANSWER,
            _ => 0,
        };
        number += 1;
    }
    table
};

/// The attempt goes on although the call has returned.
const GOES_ON: u8 = 1;
/// An answer (or the lack of one), never the call itself, brings this errno.
const ANSWER: u8 = 2;

#[inline(always)]
fn meaning(error: u32) -> u8 {
    MEANINGS
        .get(error as usize & (MEANINGS.len() - 1))
        .copied()
        .unwrap_or(0)
}

/// Whether the attempt goes on although the call has returned.
#[inline(always)]
pub(super) fn goes_on(error: u32) -> bool {
    meaning(error) & GOES_ON != 0
}

/// Whether an errno comes from an answer (or the lack of one), never from the call itself.
#[inline(always)]
pub(super) fn is_answer(error: u32) -> bool {
    meaning(error) & ANSWER != 0
}
