//! The instructions of AMX that the kernel uses, after Intel's manual (volume 2 of the Software Developer's Manual), for tests where the
//! processor has none: it raises a signal at each of them, whose handler does here what the instruction says and goes on behind it.
//!
//! The handler neither allocates nor waits: a thread's tiles are there from its beginning. What the processor would refuse ends the
//! program with a message.

mod instruction;

use instruction::Instruction;
use std::cell::{Cell, UnsafeCell};
use std::sync::Once;

const TILES: usize = 8;
const ROWS: usize = 16;
/// Of a row.
const BYTES: usize = 64;

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
const ORDER: [i32; 16] = {
    use libc::*;
    [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11,
        REG_R12, REG_R13, REG_R14, REG_R15,
    ]
};

extern "C" fn handle(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system hands the interrupted thread's state over, and takes it back when this returns. The thread was about to execute
    // what its instruction pointer points to, with operands that whoever wrote that instruction answers for. Nothing else of the thread
    // has its tiles in use meanwhile: their instructions alone have.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let next = libc::REG_RIP as usize;
        let values = ORDER.map(|register| registers[register as usize] as usize);
        if let Some((instruction, length)) = Instruction::decode(registers[next] as *const u8, &values) {
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
    use std::arch::asm;
    use std::array::from_fn;

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
