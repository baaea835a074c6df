//! The instructions of AMX that the kernel uses, after Intel's manual (volume 2 of the Software Developer's Manual), for tests where the
//! processor has none: it raises a signal at each of them, whose handler does here what the instruction says and goes on behind it.
//!
//! The handler neither allocates nor waits: a thread's tiles are there from its beginning. What the processor would refuse ends the
//! program with a message.

use std::cell::{Cell, UnsafeCell};
use std::sync::Once;

const TILES: usize = 8;
const ROWS: usize = 16;
/// Of a row.
const BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Instruction {
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

/// The instruction at `at` and how many bytes it has, if it is one of these. `registers` are those for addresses, by their number.
///
/// # Safety
/// The processor went to execute what is there.
unsafe fn decode(at: *const u8, registers: &[usize; 16]) -> Option<(Instruction, usize)> {
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

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    /// Of a row.
    bytes: usize,
}

/// What a thread has in place of a processor's tiles.
struct Tiles {
    configured: bool,
    shapes: [Shape; TILES],
    data: [[[u8; BYTES]; ROWS]; TILES],
}

type Outcome<T> = Result<T, &'static str>;

impl Tiles {
    const RELEASED: Tiles =
        Tiles { configured: false, shapes: [Shape { rows: 0, bytes: 0 }; TILES], data: [[[0; BYTES]; ROWS]; TILES] };

    /// Does what the instruction says, or says why the processor would refuse it.
    ///
    /// # Safety
    /// A tile's rows can be read or written where a load or a store says, and a configuration can be read.
    unsafe fn execute(&mut self, instruction: Instruction) -> Outcome<()> {
        match instruction {
            Instruction::Configure { from } => self.configure(&*(from as *const [u8; 64]))?,
            Instruction::Release => *self = Tiles::RELEASED,
            Instruction::Zero { tile } => {
                self.shape(tile)?;
                self.data[tile] = [[0; BYTES]; ROWS];
            }
            Instruction::Load { tile, from, pitch } => {
                let shape = self.shape(tile)?;
                // Behind the shape zeros.
                let mut rows = [[0; BYTES]; ROWS];
                for (i, row) in rows[..shape.rows].iter_mut().enumerate() {
                    let from = from.wrapping_add(i.wrapping_mul(pitch)) as *const u8;
                    std::ptr::copy_nonoverlapping(from, row.as_mut_ptr(), shape.bytes);
                }
                self.data[tile] = rows;
            }
            Instruction::Store { tile, to, pitch } => {
                let shape = self.shape(tile)?;
                for (i, row) in self.data[tile][..shape.rows].iter().enumerate() {
                    let to = to.wrapping_add(i.wrapping_mul(pitch)) as *mut u8;
                    std::ptr::copy_nonoverlapping(row.as_ptr(), to, shape.bytes);
                }
            }
            Instruction::Multiply { sums, left, right } => self.multiply(sums, left, right)?,
        }
        Ok(())
    }

    fn configure(&mut self, from: &[u8; 64]) -> Outcome<()> {
        *self = match from[0] {
            0 => Tiles::RELEASED,
            1 => {
                let mut tiles = Tiles { configured: true, ..Tiles::RELEASED };
                if from[1] != 0 {
                    return Err("a load or store that begins in the middle of a tile is not emulated");
                }
                // Reserved, and of tiles that are not there.
                if from[2..16].iter().chain(&from[32..48]).chain(&from[56..]).any(|&byte| byte != 0) {
                    return Err("#GP: ldtilecfg wants zeros where nothing stands");
                }
                for (tile, shape) in tiles.shapes.iter_mut().enumerate() {
                    let bytes = u16::from_le_bytes([from[16 + 2 * tile], from[17 + 2 * tile]]);
                    *shape = Shape { rows: from[48 + tile].into(), bytes: bytes.into() };
                    if shape.rows > ROWS || shape.bytes > BYTES || (shape.rows == 0) != (shape.bytes == 0) {
                        return Err("#GP: ldtilecfg is given a shape that no tile can have");
                    }
                }
                tiles
            }
            _ => return Err("#GP: ldtilecfg is given an unknown palette"),
        };
        Ok(())
    }

    /// Of a tile that can be used.
    fn shape(&self, tile: usize) -> Outcome<Shape> {
        match self.shapes[tile] {
            _ if !self.configured => Err("#UD: no tiles are configured"),
            Shape { rows: 0, .. } => Err("#UD: this tile is not configured"),
            shape => Ok(shape),
        }
    }

    /// Each sum gets the products of even and of odd steps of k, which are summed up apart from each other first.
    fn multiply(&mut self, sums: usize, left: usize, right: usize) -> Outcome<()> {
        let (c, a, b) = (self.shape(sums)?, self.shape(left)?, self.shape(right)?);
        if sums == left || sums == right || left == right {
            return Err("#UD: two tiles of a product are the same");
        }
        if [a, b, c].iter().any(|shape| shape.bytes % 4 != 0) {
            return Err("#UD: a row of a tile is not whole pairs");
        }
        if c.rows != a.rows || c.bytes != b.bytes || a.bytes / 4 != b.rows {
            return Err("#UD: the shapes of a product do not fit each other");
        }
        for m in 0..c.rows {
            let mut apart = [0f32; BYTES / 2];
            for k in 0..b.rows {
                let pair = [factor(&self.data[left][m], 2 * k), factor(&self.data[left][m], 2 * k + 1)];
                for (i, sum) in apart[..c.bytes / 2].iter_mut().enumerate() {
                    *sum = flushed(pair[i % 2].mul_add(factor(&self.data[right][k], i), *sum));
                }
            }
            let mut row = [0; BYTES];
            for (n, to) in row[..c.bytes].chunks_exact_mut(4).enumerate() {
                let at = &self.data[sums][m][4 * n..];
                let before = flushed(f32::from_le_bytes([at[0], at[1], at[2], at[3]]));
                let sum = flushed(before + flushed(apart[2 * n] + apart[2 * n + 1]));
                to.copy_from_slice(&sum.to_le_bytes());
            }
            self.data[sums][m] = row;
        }
        self.data[sums][c.rows..].fill([0; BYTES]);
        if WRONG.get() {
            self.data[sums][c.rows - 1][0] ^= 1;
        }
        Ok(())
    }
}

/// bf16 number `i` of a row.
fn factor(row: &[u8; BYTES], i: usize) -> f32 {
    flushed(f32::from_le_bytes([0, 0, row[2 * i], row[2 * i + 1]]))
}

/// Numbers too small for all digits count as zero, read or written.
fn flushed(x: f32) -> f32 {
    match x.is_subnormal() {
        true => 0f32.copysign(x),
        false => x,
    }
}

thread_local! {
    static ALL: UnsafeCell<Tiles> = const { UnsafeCell::new(Tiles::RELEASED) };
    static WRONG: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` where a product of tiles is wrong in its smallest digit in one place, on this thread.
pub fn wrongly<R>(f: impl FnOnce() -> R) -> R {
    WRONG.set(true);
    let result = f();
    WRONG.set(false);
    result
}

/// Sees to it that this process can execute the instructions, emulated from now on if the processor has none. False where it has them
/// and the system refuses.
pub fn here() -> bool {
    static INSTALLED: Once = Once::new();
    if super::allowed() {
        return true;
    }
    if super::present() {
        return false;
    }
    INSTALLED.call_once(|| {
        // SAFETY: all zeros are a valid description, of no flags and an empty mask; the handler is one for three arguments, as its
        // flag says, and leaves everything as it was but what an instruction of AMX changes.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
        }
    });
    true
}

/// The system's places of the registers, by their numbers in instructions.
const ORDER: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn handle(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system hands the interrupted thread's state over, and takes it back when this returns. The thread was about to execute
    // what its instruction pointer points to, with operands that whoever wrote that instruction answers for. Nothing else of the thread
    // has its tiles in use meanwhile: their instructions alone have.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let next = libc::REG_RIP as usize;
        let values = ORDER.map(|register| registers[register as usize] as usize);
        if let Some((instruction, length)) = decode(registers[next] as *const u8, &values) {
            match ALL.with(|tiles| (*tiles.get()).execute(instruction)) {
                Ok(()) => {
                    registers[next] += length as i64;
                    return;
                }
                Err(what) => {
                    libc::write(2, what.as_ptr().cast(), what.len());
                    libc::write(2, c"\n".as_ptr().cast(), 1);
                }
            }
        }
        // The instruction is tried again, and nobody handles it.
        libc::signal(libc::SIGILL, libc::SIG_DFL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use std::arch::{asm, global_asm};
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
            let (found, length) = unsafe { decode(at, &registers) }.unwrap();
            assert_eq!(found, expected);
            at = at.wrapping_add(length);
        }
        assert_eq!(at, end);
        // SAFETY: two more instructions follow there, of 5 and 2 bytes.
        unsafe {
            assert_eq!(decode(end, &registers), None);
            assert_eq!(decode(end.add(5), &registers), None);
        }
    }

    /// A configuration whose tiles 0 to 7 have these rows and bytes of a row.
    fn shapes(of: [(u8, u8); 8]) -> [u8; 64] {
        let mut shapes = [0; 64];
        shapes[0] = 1;
        for (tile, (rows, bytes)) in of.into_iter().enumerate() {
            (shapes[48 + tile], shapes[16 + 2 * tile]) = (rows, bytes);
        }
        shapes
    }

    /// `c += a b` for tiles of these shapes, with rows so many bytes apart; a processor with tiles does it itself.
    unsafe fn product(of: [(u8, u8); 3], c: *mut f32, a: *const u16, b: *const u16, pitch: usize) {
        let mut all = [(16, 64); 8];
        all[..3].copy_from_slice(&of);
        let mut cleared = [1u8; 1024];
        asm!(
            "ldtilecfg [{shapes}]",
            "tileloadd tmm0, [{c} + {pitch}*1]",
            "tileloadd tmm1, [{a} + {pitch}*1]",
            "tileloaddt1 tmm2, [{b} + {pitch}*1]",
            "tdpbf16ps tmm0, tmm1, tmm2",
            "tilestored [{c} + {pitch}*1], tmm0",
            "tilestored [{cleared} + {wide}*1], tmm3",
            "tilerelease",
            shapes = in(reg) &shapes(all),
            a = in(reg) a,
            b = in(reg) b,
            c = in(reg) c,
            cleared = in(reg) &mut cleared,
            pitch = in(reg) pitch,
            wide = in(reg) 64usize,
            options(nostack),
        );
        assert_eq!(cleared, [0; 1024], "a configuration clears tiles");
    }

    #[test]
    fn tiles_of_any_shape_multiply() {
        if !here() {
            return;
        }
        // 3 rows by 4 pairs, and 4 rows by 5 columns of pairs; rows are 24 bytes long.
        let a: [[bf16; 12]; 3] = from_fn(|m| from_fn(|p| bf16::from_f32((m * 5 + p) as f32 - 7.0)));
        let b: [[bf16; 12]; 4] = from_fn(|k| from_fn(|i| bf16::from_f32((k * 3 + i) as f32 - 9.0)));
        let mut c = [[100f32; 6]; 4];
        // SAFETY: as many rows as the shapes say are there.
        unsafe {
            product([(3, 20), (3, 16), (4, 20)], c.as_mut_ptr().cast(), a.as_ptr().cast(), b.as_ptr().cast(), 24)
        };
        let expected: [[f32; 6]; 4] = from_fn(|m| {
            from_fn(|n| match m < 3 && n < 5 {
                true => 100.0 + (0..8).map(|p| a[m][p].to_f32() * b[p / 2][2 * n + p % 2].to_f32()).sum::<f32>(),
                false => 100.0,
            })
        });
        assert_eq!(c, expected);
    }

    #[test]
    fn numbers_too_small_for_all_digits_count_as_zero() {
        if !here() {
            return;
        }
        let power = |n: i32| bf16::from_f32(2f32.powi(n));
        let smallest = f32::MIN_POSITIVE;
        let cases = [
            // The products 2^-133 2^127 and 3.
            (1.0, [bf16::from_bits(1), power(0)], [power(127), bf16::from_f32(3.0)], 4.0),
            (0.0, [power(-100), power(-70)], [power(-40), power(-70)], 0.0),
            (smallest / 2.0, [power(-126), power(0)], [power(0), power(-126)], 2.0 * smallest),
            (-smallest, [power(-126), power(-127)], [bf16::from_f32(1.5), power(0)], 0.0),
        ];
        for (before, a, b, after) in cases {
            let mut c = before;
            // SAFETY: one number, and a pair for each of its factors.
            unsafe { product([(1, 4); 3], &mut c, a.as_ptr().cast(), b.as_ptr().cast(), 64) };
            assert_eq!(c, after, "{before} and {a:?} times {b:?}");
        }
    }

    #[test]
    fn what_a_processor_refuses_is_refused() {
        use Instruction::*;
        let whole = shapes([(16, 64); 8]);
        let product = Multiply { sums: 0, left: 1, right: 2 };
        let outcome = |shapes: [u8; 64], then: Instruction| {
            let mut tiles = Tiles::RELEASED;
            // SAFETY: the configuration is there, and the others touch no memory.
            unsafe { tiles.execute(Configure { from: shapes.as_ptr() as usize }).and_then(|()| tiles.execute(then)) }
        };
        assert_eq!(outcome(whole, product), Ok(()));
        assert_eq!(outcome([0; 64], Release), Ok(()));
        assert!(outcome([0; 64], product).unwrap_err().starts_with("#UD"), "nothing is configured");
        let with = |at: usize, byte: u8| {
            let mut other = whole;
            other[at] = byte;
            other
        };
        // The palette, where nothing may stand, rows and bytes that are too many or without each other.
        for (at, byte) in [(0, 2), (2, 1), (15, 1), (32, 64), (47, 1), (56, 16), (63, 1), (48, 17), (16, 65), (50, 0)] {
            assert!(outcome(with(at, byte), Release).unwrap_err().starts_with("#GP"), "byte {at} is {byte}");
        }
        assert!(outcome(shapes([(16, 64), (16, 64), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]), product).is_err());
        for others in [(0, 0, 1), (0, 1, 0), (0, 1, 1)] {
            let (sums, left, right) = others;
            assert!(outcome(whole, Multiply { sums, left, right }).unwrap_err().starts_with("#UD"), "{others:?}");
        }
        for (c, a, b) in [
            ((15, 64), (16, 64), (16, 64)),
            ((16, 60), (16, 64), (16, 64)),
            ((16, 64), (16, 60), (16, 64)),
            ((16, 62), (16, 64), (16, 62)),
        ] {
            let mut of = [(16, 64); 8];
            (of[0], of[1], of[2]) = (c, a, b);
            assert!(outcome(shapes(of), product).unwrap_err().starts_with("#UD"), "{c:?} {a:?} {b:?}");
        }
    }
}
