//! The picture that golden scripts make by a formula.

use sitter::picture::Picture;

/// Half noise, half slopes.
pub fn formula((width, height): (u32, u32)) -> Picture {
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for c in 0..3u32 {
                let mut h = x.wrapping_mul(73856093) ^ y.wrapping_mul(19349663) ^ c.wrapping_mul(83492791);
                h ^= h >> 13;
                h = h.wrapping_mul(0x5bd1e995);
                h ^= h >> 15;
                let slope = (x * 3 + y * 2 + c * 40) & 255;
                rgb.push((((h & 255) + slope) / 2) as u8);
            }
        }
    }
    Picture::new(width, height, rgb).unwrap()
}
