//! The instructions of AMX that the kernel uses, as machine code has them.

use super::TILES;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instruction {
    /// `ldtilecfg`
    Configure { from: usize },
    /// `tilerelease`
    Release,
    /// `tilezero`
    Zero { tile: usize },
    /// `tileloadd`, and `tileloaddt1`, which says something of caches beside.
    Load { tile: usize, from: usize, pitch: usize },
    /// `tilestored`
    Store { tile: usize, to: usize, pitch: usize },
    /// `tdpbf16ps`
    Multiply { sums: usize, left: usize, right: usize },
}

impl Instruction {
    /// The instruction at `at` and how many bytes it has, if it is one of these. `registers` are those for addresses, by their number.
    ///
    /// # Safety
    /// The processor went to execute what is there.
    pub unsafe fn decode(at: *const u8, registers: &[usize; 16]) -> Option<(Self, usize)> {
        /// The mandatory prefix, as VEX has it.
        const NONE: u8 = 0;
        const X66: u8 = 1;
        const XF3: u8 = 2;
        const XF2: u8 = 3;
        // VEX in three bytes, of which the second begins with R, X and B and ends with the map of opcodes, 0F 38; the third has W, a
        // register, the length of vectors and the prefix. All but W, length and map are inverted. Byte by byte: behind a shorter
        // instruction may be the end of memory.
        if *at != 0xc4 || *at.add(1) & 0x1f != 2 || *at.add(2) & 0x84 != 0 {
            return None;
        }
        let (high, third) = (!*at.add(1), *at.add(2));
        let bit = |number: u8| usize::from(high >> number & 1) << 3;
        let (r, x, b) = (bit(7), bit(6), bit(5));
        let (third, prefix) = (usize::from(!third >> 3 & 15), third & 3);
        let (opcode, modes) = (*at.add(3), *at.add(4));
        let (in_memory, first) = (modes >> 6 != 3, r + usize::from(modes >> 3 & 7));
        let last = usize::from(modes & 7);

        if (opcode, prefix, in_memory) == (0x5c, XF3, false) {
            let (sums, left, right) = (first, b + last, third);
            return (sums.max(left).max(right) < TILES).then_some((Instruction::Multiply { sums, left, right }, 5));
        }
        if third != 0 || first >= TILES {
            return None;
        }
        if !in_memory {
            return match (opcode, prefix, b + last) {
                (0x49, NONE, 0) if first == 0 => Some((Instruction::Release, 5)),
                (0x49, XF2, 0) => Some((Instruction::Zero { tile: first }, 5)),
                _ => None,
            };
        }
        let place = Place::decode(at, (x, b), registers);
        let (start, pitch, tile) = (place.start, place.step, first);
        let instruction = match (opcode, prefix) {
            (0x49, NONE) if first == 0 => Instruction::Configure { from: start.wrapping_add(pitch) },
            // A tile in memory has a base and an index, which is the distance of its rows.
            (0x4b, XF2 | X66) if last == 4 => Instruction::Load { tile, from: start, pitch },
            (0x4b, XF3) if last == 4 => Instruction::Store { tile, to: start, pitch },
            _ => return None,
        };
        Some((instruction, place.length))
    }
}

/// What an instruction says of an address.
struct Place {
    /// Base and displacement.
    start: usize,
    /// The index times its scale.
    step: usize,
    /// Bytes of the whole instruction.
    length: usize,
}

impl Place {
    /// Of the instruction at `at` with five bytes before the rest of the address; `x` and `b` are 8 or 0, added to index and base.
    unsafe fn decode(at: *const u8, (x, b): (usize, usize), registers: &[usize; 16]) -> Self {
        let modes = *at.add(4);
        let (mode, mut base, mut length) = (modes >> 6, modes & 7, 5);
        let mut step = 0;
        if base == 4 {
            let scaled = *at.add(5);
            let index = x + usize::from(scaled >> 3 & 7);
            // The stack pointer's number stands for none.
            step = if index == 4 { 0 } else { registers[index] << (scaled >> 6) };
            (base, length) = (scaled & 7, 6);
        }
        let mut start = registers[b + usize::from(base)];
        let wide = || at.add(length).cast::<i32>().read_unaligned() as usize;
        match (mode, base) {
            // No base; without an index the address is counted from the end of the instruction.
            (0, 5) => {
                let from = if length == 5 { at as usize + 9 } else { 0 };
                (start, length) = (from.wrapping_add(wide()), length + 4);
            }
            (0, _) => {}
            (1, _) => (start, length) = (start.wrapping_add(*at.add(length) as i8 as usize), length + 1),
            _ => (start, length) = (start.wrapping_add(wide()), length + 4),
        }
        Place { start, step, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::arch::global_asm;
    use std::array::from_fn;

    // As the assembler writes them; never executed.
    global_asm!(
        ".pushsection .rodata",
        "sitter_tiles:",
        "ldtilecfg [rcx]",
        "ldtilecfg [r13]",
        "ldtilecfg [r12 + r9*4 - 16]",
        "tilerelease",
        "tilezero tmm0",
        "tilezero tmm5",
        "tileloadd tmm1, [rax + rdx*1]",
        "tileloadd tmm7, [rbp + r15*8 + 64]",
        "tileloaddt1 tmm2, [r8 + rbx*2 - 70000]",
        "tileloadd tmm3, [r13 + r12*1]",
        "tileloadd tmm4, [r12]",
        "tilestored [rsp + rsi*1 + 2112], tmm6",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tdpbf16ps tmm7, tmm1, tmm2",
        "ldtilecfg [rip + 100]",
        "sitter_tiles_end:",
        "vpermd ymm0, ymm1, ymm2",
        "ud2",
        ".popsection",
    );
    extern "C" {
        static sitter_tiles: u8;
        static sitter_tiles_end: u8;
    }

    #[test]
    fn instructions_are_read_as_the_assembler_writes_them() {
        use Instruction::*;
        // Register number i, which are rax rcx rdx rbx rsp rbp rsi rdi r8 to r15, holds (i + 1) million.
        let registers: [usize; 16] = from_fn(|i| (i + 1) * 1_000_000);
        let (mut at, end) = (&raw const sitter_tiles, &raw const sitter_tiles_end);
        let expected = [
            Configure { from: 2_000_000 },
            Configure { from: 14_000_000 },
            Configure { from: 13_000_000 + 4 * 10_000_000 - 16 },
            Release,
            Zero { tile: 0 },
            Zero { tile: 5 },
            Load { tile: 1, from: 1_000_000, pitch: 3_000_000 },
            Load { tile: 7, from: 6_000_064, pitch: 8 * 16_000_000 },
            Load { tile: 2, from: 9_000_000 - 70000, pitch: 2 * 4_000_000 },
            Load { tile: 3, from: 14_000_000, pitch: 13_000_000 },
            Load { tile: 4, from: 13_000_000, pitch: 0 },
            Store { tile: 6, to: 5_002_112, pitch: 7_000_000 },
            Multiply { sums: 0, left: 4, right: 6 },
            Multiply { sums: 7, left: 1, right: 2 },
            Configure { from: end as usize + 100 },
        ];
        for expected in expected {
            // SAFETY: instructions follow up to `end`.
            let (found, length) = unsafe { Instruction::decode(at, &registers) }.unwrap();
            assert_eq!(found, expected);
            at = at.wrapping_add(length);
        }
        assert_eq!(at, end);
        // SAFETY: two more instructions follow there, of 5 and 2 bytes.
        unsafe {
            assert_eq!(Instruction::decode(end, &registers), None);
            assert_eq!(Instruction::decode(end.add(5), &registers), None);
        }
    }
}
