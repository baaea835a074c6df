//! The 8-bit code of optimizer states: a number from -1 to 1 (or 0 to 1) as a decimal exponent in unary and a linear
//! fraction in the bits that are left ("dynamic tree quantisation", Dettmers et al., arXiv 2110.02861, section 1.3).

use std::sync::OnceLock;

/// The 256 numbers of a code, in order, and the borders between neighbours.
struct Table {
    values: [f32; 256],
    borders: [f32; 255],
}

fn table(signed: bool) -> &'static Table {
    static SIGNED: OnceLock<Table> = OnceLock::new();
    static UNSIGNED: OnceLock<Table> = OnceLock::new();
    match signed {
        true => SIGNED.get_or_init(|| Table::new(true)),
        false => UNSIGNED.get_or_init(|| Table::new(false)),
    }
}

impl Table {
    fn new(signed: bool) -> Self {
        let mut all = vec![0f32, 1.0];
        for exponent in 0..7 {
            // Each more step of the exponent doubles the fractions, which are the middles of equal parts of 0.1 to 1.
            let parts = 1usize << (exponent + usize::from(!signed));
            for part in 0..parts {
                let middle = 0.1 + 0.9 * (part as f64 + 0.5) / parts as f64;
                let value = (middle * 10f64.powi(exponent as i32 - 6)) as f32;
                all.push(value);
                if signed {
                    all.push(-value);
                }
            }
        }
        all.sort_by(f32::total_cmp);
        let mut values = [0f32; 256];
        values.copy_from_slice(&all[..256]);
        let mut borders = [0f32; 255];
        for (i, border) in borders.iter_mut().enumerate() {
            *border = 0.5 * (values[i] + values[i + 1]);
        }
        Table { values, borders }
    }
}

/// The code of the nearest number.
pub fn encode(value: f32, signed: bool) -> u8 {
    let borders = &table(signed).borders;
    let mut at = 0;
    for step in [128, 64, 32, 16, 8, 4, 2, 1] {
        // `at + step - 1` is the border below number `at + step`.
        if value > borders[at + step - 1] {
            at += step;
        }
    }
    at as u8
}

pub fn decode(code: u8, signed: bool) -> f32 {
    table(signed).values[code as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_cover_their_range_and_are_finest_near_zero() {
        for signed in [true, false] {
            let values = table(signed).values;
            assert!(values.windows(2).all(|w| w[0] < w[1]), "256 different numbers");
            assert_eq!((values[255], values.contains(&0.0)), (1.0, true));
            assert_eq!(values[0] < -0.9, signed);
            for code in 0..=255 {
                assert_eq!(encode(decode(code, signed), signed), code);
            }
            for value in [1e-6f32, 3e-5, 0.002, 0.07, 0.31, 0.99] {
                let error = (decode(encode(value, signed), signed) - value).abs() / value;
                assert!(error < if value > 0.01 { 0.03 } else { 0.7 }, "{value}: {error}");
            }
        }
    }
}
