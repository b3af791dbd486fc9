//! The inner loop: a block of up to two by two tiles of the result.

use std::arch::asm;
use std::marker::PhantomData;

/// Rows of a tile, and f32 columns.
pub(crate) const TILE: usize = 16;

/// bf16 numbers of a row of a left tile at most, and so the depth of a step.
pub(crate) const DEPTH: usize = 32;

/// What `ldtilecfg` reads (Intel's manual, volume 2A).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tiles of this thread, configured; released when dropped.
///
/// Whoever holds it does not let other work run on the thread meanwhile: that may configure or release them too.
pub(crate) struct Tiles {
    /// Configured for one thread.
    thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Tiles for steps of `depth` values, an even number up to 32.
    ///
    /// # Safety
    /// The unit is available.
    pub(crate) unsafe fn configure(depth: usize) -> Self {
        debug_assert!(depth.is_multiple_of(2) && (2..=DEPTH).contains(&depth));
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for tile in 0..8 {
            let (rows, bytes) = match tile {
                4 | 5 => (TILE, 2 * depth),
                6 | 7 => (depth / 2, 4 * TILE),
                _ => (TILE, 4 * TILE),
            };
            (configuration.rows[tile], configuration.row_bytes[tile]) = (rows as u8, bytes as u16);
        }
        // SAFETY: the caller vouches for the unit; the configuration is a valid one.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, preserves_flags, readonly)) };
        Self { thread: PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there are tiles, as this one says.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// `out = start + Σ left · right` for up to two tiles of rows and two of columns, over `steps` stretches of the shared
/// axis. Distances are in bytes. The assembly reads it by its fields' places.
#[repr(C)]
pub(crate) struct Product {
    /// The first row of either tile of rows, its first parts.
    pub(crate) left: [*const u16; 2],
    /// Between rows.
    pub(crate) left_stride: usize,
    /// From one part to the next.
    pub(crate) left_part: usize,
    /// Where each step begins in a row, from the first to beyond the last.
    pub(crate) steps: *const u32,
    pub(crate) steps_end: *const u32,
    /// The first tile of columns, its first parts; a tile's rows lie side by side.
    pub(crate) right: *const u16,
    /// From the first to the second tile of columns.
    pub(crate) right_tile: usize,
    /// From one part to the next.
    pub(crate) right_part: usize,
    /// From one step to the next.
    pub(crate) right_step: usize,
    /// Results of either tile of rows.
    pub(crate) out: [*mut f32; 2],
    /// Between rows of results.
    pub(crate) out_stride: [usize; 2],
    /// Whether the results start from what is there, or from 0.
    pub(crate) accumulate: usize,
    /// Memory that later work needs, [`Self::ahead`] of it, asked for meanwhile; it may lie anywhere.
    pub(crate) ahead: *const u16,
}

impl Product {
    /// Numbers that a product of `steps` steps asks for ahead: two cache lines for each product of parts. More would
    /// take the places of those that it waits for itself.
    pub(crate) const fn ahead<const PARTS: usize>(steps: usize) -> usize {
        steps * (PARTS * (PARTS + 1) / 2) * 2 * 64 / size_of::<u16>()
    }

    /// Computes `rows` by `columns` tiles, each 1 or 2, of numbers in `PARTS` parts, 1 or 3.
    ///
    /// # Safety
    /// Pointers, steps and strides stay within their buffers, nothing else touches the results meanwhile, and the tiles
    /// are configured for steps of as many values as there are to read.
    #[inline(always)]
    pub(crate) unsafe fn run<const PARTS: usize>(&self, _tiles: &Tiles, rows: usize, columns: usize) {
        // SAFETY: the caller's.
        unsafe {
            match (PARTS, rows, columns) {
                (1, 1, 1) => self.one_by_one_of_one(),
                (1, 1, _) => self.one_by_two_of_one(),
                (1, _, 1) => self.two_by_one_of_one(),
                (1, _, _) => self.two_by_two_of_one(),
                (_, 1, 1) => self.one_by_one_of_three(),
                (_, 1, _) => self.one_by_two_of_three(),
                (_, _, 1) => self.two_by_one_of_three(),
                _ => self.two_by_two_of_three(),
            }
        }
    }
}

/// One function. A step finds in `r8` and `r9` the first parts of the left rows, in `r10` the distance between rows and
/// in `r11` that between parts; in `rdi` and `rcx` the first parts of the right tiles, whose rows are `rdx` apart, and
/// under `rax + 64` the distance between parts; in `r15` that between steps. It may change all but the distances; `rdi`
/// is kept for it. What is asked for ahead is at `r13`, two lines after each product of parts.
macro_rules! function {
    ($name:ident, begin: [$($begin:literal)*], start: [$($start:literal)*], step: [$([$($step:literal)*])*],
     end: [$($end:literal)*]) => {
        /// # Safety
        /// As [`Self::run`].
        #[inline(never)]
        unsafe fn $name(&self) {
            // SAFETY: the caller vouches for all that is read and written; every register used is named.
            unsafe {
                asm!(
                    "mov r8, [rax + 96]",
                    "mov r9, [rax + 104]",
                    "mov r10, [rax + 80]",
                    "mov r11, [rax + 88]",
                    "cmp qword ptr [rax + 112], 0",
                    "jne 2f",
                    $($begin,)*
                    "jmp 3f",
                    "2:",
                    $($start,)*
                    "3:",
                    "mov r14, [rax]",
                    "mov r15, [rax + 72]",
                    "mov r10, [rax + 16]",
                    "mov r11, [rax + 24]",
                    "mov rsi, [rax + 32]",
                    "mov rdi, [rax + 48]",
                    "mov r13, [rax + 120]",
                    "mov edx, 64",
                    "cmp rsi, [rax + 40]",
                    "je 5f",
                    ".p2align 5",
                    "4:",
                    "mov r12d, [rsi]",
                    "lea r8, [r14 + r12]",
                    "mov r9, [rax + 8]",
                    "add r9, r12",
                    "mov r12, rdi",
                    "mov rcx, [rax + 56]",
                    "add rcx, rdi",
                    $(
                        $($step,)*
                        "prefetcht1 [r13]",
                        "prefetcht1 [r13 + 64]",
                        "add r13, 128",
                    )*
                    "mov rdi, r12",
                    "add rdi, r15",
                    "add rsi, 4",
                    "cmp rsi, [rax + 40]",
                    "jne 4b",
                    "5:",
                    "mov r8, [rax + 96]",
                    "mov r9, [rax + 104]",
                    "mov r10, [rax + 80]",
                    "mov r11, [rax + 88]",
                    $($end,)*
                    in("rax") self,
                    out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _,
                    out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

/// One shape of block, in one or three parts: how its tiles are loaded, multiplied, and stepped from part to part. While
/// right tiles are multiplied for the first time, those of the next step are brought to the first-level cache: in
/// brackets, what follows each product then.
///
/// The products of a tile are added in the same order whatever the number of tiles, so that a sum does not depend on
/// how rows are cut: first · first, first · second and so on along the right, then the second left part back from the
/// last right one that matters.
macro_rules! block {
    ($one:ident $three:ident, begin: $begin:tt, start: $start:tt,
     left: [$($left:literal)*], right: [$($right:literal)*], multiply: [$($multiply:literal [$($next:literal)*])*],
     left_on: [$($left_on:literal)*], right_on: [$($right_on:literal)*],
     right_back: [$($right_back:literal)*],
     end: $end:tt) => {
        function!($one, begin: $begin, start: $start, step: [
            [$($left)* $($right)* $($multiply $($next)*)*]
        ], end: $end);
        function!($three, begin: $begin, start: $start, step: [
            [$($left)* $($right)* $($multiply $($next)*)*]
            [$($right_on)* $($right)* $($multiply $($next)*)*]
            [$($right_on)* $($right)* $($multiply $($next)*)*]
            [$($left_on)* $($right_back)* $($left)* $($right)* $($multiply)*]
            [$($right_back)* $($right)* $($multiply)*]
            [$($left_on)* $($left)* $($multiply)*]
        ], end: $end);
    };
}

impl Product {
    block!(two_by_two_of_one two_by_two_of_three,
    begin: ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"],
    start: [
        "tileloadd tmm0, [r10 + r8]" "tileloadd tmm1, [r10 + r8 + 64]"
        "tileloadd tmm2, [r11 + r9]" "tileloadd tmm3, [r11 + r9 + 64]"
    ],
    left: ["tileloadd tmm4, [r8 + r10]" "tileloadd tmm5, [r9 + r10]"],
    right: ["tileloadd tmm6, [rdi + rdx]" "tileloadd tmm7, [rcx + rdx]"],
    multiply: [
        "tdpbf16ps tmm0, tmm4, tmm6" [".irp at,0,64,128,192,256,320,384,448\nprefetcht0 [rdi + r15 + \\at]\n.endr"]
        "tdpbf16ps tmm1, tmm4, tmm7" [".irp at,512,576,640,704,768,832,896,960\nprefetcht0 [rdi + r15 + \\at]\n.endr"]
        "tdpbf16ps tmm2, tmm5, tmm6" [".irp at,0,64,128,192,256,320,384,448\nprefetcht0 [rcx + r15 + \\at]\n.endr"]
        "tdpbf16ps tmm3, tmm5, tmm7" [".irp at,512,576,640,704,768,832,896,960\nprefetcht0 [rcx + r15 + \\at]\n.endr"]
    ],
    left_on: ["add r8, r11" "add r9, r11"],
    right_on: ["add rdi, [rax + 64]" "add rcx, [rax + 64]"],
    right_back: ["sub rdi, [rax + 64]" "sub rcx, [rax + 64]"],
    end: [
        "tilestored [r10 + r8], tmm0" "tilestored [r10 + r8 + 64], tmm1"
        "tilestored [r11 + r9], tmm2" "tilestored [r11 + r9 + 64], tmm3"
    ]);

    block!(two_by_one_of_one two_by_one_of_three,
        begin: ["tilezero tmm0" "tilezero tmm2"],
        start: ["tileloadd tmm0, [r10 + r8]" "tileloadd tmm2, [r11 + r9]"],
        left: ["tileloadd tmm4, [r8 + r10]" "tileloadd tmm5, [r9 + r10]"],
        right: ["tileloadd tmm6, [rdi + rdx]"],
        multiply: [
            "tdpbf16ps tmm0, tmm4, tmm6" [".irp at,0,64,128,192,256,320,384,448\nprefetcht0 [rdi + r15 + \\at]\n.endr"]
            "tdpbf16ps tmm2, tmm5, tmm6" [".irp at,512,576,640,704,768,832,896,960\nprefetcht0 [rdi + r15 + \\at]\n.endr"]
        ],
        left_on: ["add r8, r11" "add r9, r11"],
        right_on: ["add rdi, [rax + 64]"],
        right_back: ["sub rdi, [rax + 64]"],
        end: ["tilestored [r10 + r8], tmm0" "tilestored [r11 + r9], tmm2"]);

    block!(one_by_two_of_one one_by_two_of_three,
        begin: ["tilezero tmm0" "tilezero tmm1"],
        start: ["tileloadd tmm0, [r10 + r8]" "tileloadd tmm1, [r10 + r8 + 64]"],
        left: ["tileloadd tmm4, [r8 + r10]"],
        right: ["tileloadd tmm6, [rdi + rdx]" "tileloadd tmm7, [rcx + rdx]"],
        multiply: [
            "tdpbf16ps tmm0, tmm4, tmm6" [
                ".irp at,0,64,128,192,256,320,384,448\nprefetcht0 [rdi + r15 + \\at]\n.endr"
                ".irp at,512,576,640,704,768,832,896,960\nprefetcht0 [rdi + r15 + \\at]\n.endr"
            ]
            "tdpbf16ps tmm1, tmm4, tmm7" [
                ".irp at,0,64,128,192,256,320,384,448\nprefetcht0 [rcx + r15 + \\at]\n.endr"
                ".irp at,512,576,640,704,768,832,896,960\nprefetcht0 [rcx + r15 + \\at]\n.endr"
            ]
        ],
        left_on: ["add r8, r11"],
        right_on: ["add rdi, [rax + 64]" "add rcx, [rax + 64]"],
        right_back: ["sub rdi, [rax + 64]" "sub rcx, [rax + 64]"],
        end: ["tilestored [r10 + r8], tmm0" "tilestored [r10 + r8 + 64], tmm1"]);

    block!(one_by_one_of_one one_by_one_of_three,
        begin: ["tilezero tmm0"],
        start: ["tileloadd tmm0, [r10 + r8]"],
        left: ["tileloadd tmm4, [r8 + r10]"],
        right: ["tileloadd tmm6, [rdi + rdx]"],
        multiply: [
            "tdpbf16ps tmm0, tmm4, tmm6" [
                ".irp at,0,64,128,192,256,320,384,448\nprefetcht0 [rdi + r15 + \\at]\n.endr"
                ".irp at,512,576,640,704,768,832,896,960\nprefetcht0 [rdi + r15 + \\at]\n.endr"
            ]
        ],
        left_on: ["add r8, r11"],
        right_on: ["add rdi, [rax + 64]"],
        right_back: ["sub rdi, [rax + 64]"],
        end: ["tilestored [r10 + r8], tmm0"]);
}
