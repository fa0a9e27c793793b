//! The digit permutations of upstream's batched inference: `t → ((t − 2 + perm) mod 9) + 2` on digit tokens 2..=10.

/// Digit tokens moved up cyclically by `perm`; blanks, padding and every other token stay. `perm` counts modulo 9.
///
/// # Shapes
/// - tokens: any
pub fn shift_digits(tokens: &mut [i32], perm: u32) {
    let by = (perm % 9) as i32;
    for token in tokens {
        if (2..=10).contains(token) {
            *token = (*token - 2 + by) % 9 + 2;
        }
    }
}

/// Undoes [`shift_digits`] with the same `perm`.
pub fn unshift_digits(tokens: &mut [i32], perm: u32) {
    shift_digits(tokens, 9 - perm % 9);
}
