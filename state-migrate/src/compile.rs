//! A plan as BPF instructions: what the steps do, straight on, with nothing left to decide at run time.
//!
//! The interpreter in the host looks at every step of a plan again for each record. A sweep over ten thousand records
//! does the same thing ten thousand times, so there it pays to put the plan into instructions once. [`compile`] does
//! that for the steps of one scope; what comes out does to a record exactly what [`apply`] does, saturation and
//! rounding included, and a test runs both on random plans. Ranges are followed at compile time, so the code holds only
//! the checks that the types leave open: `u32` microseconds into `u64` nanoseconds are a load, a multiplication, a store.
//!
//! # The code
//! It expects the record, header included, in `r1`, and may change `r0` and `r2` to `r5`. It runs through to its last
//! instruction: jumps go forward and inside it. The instruction set is the first version of BPF's (RFC 9669, group
//! `base64`), without calls, so that it can run under a `bpf_spin_lock`.
//!
//! [`apply`]: crate::apply()

use crate::step::{Linear, Number, Repeat, Step};

/// One instruction.
const INSN: usize = 8;

const RECORD: u8 = 1;
/// The number on its way: all of it, or its magnitude.
const VALUE: u8 = 2;
/// Its sign: 0, or all ones if it is negative. Only where it can be.
const SIGN: u8 = 3;
const SCRATCH: u8 = 4;
const OTHER: u8 = 5;
const FACTOR: u8 = 0;

/// Operations of 64 bits with a constant; [`REG`] makes it a register.
mod op {
    pub const ADD: u8 = 0x07;
    pub const SUB: u8 = 0x17;
    pub const MUL: u8 = 0x27;
    pub const DIV: u8 = 0x37;
    pub const LSH: u8 = 0x67;
    pub const NEG: u8 = 0x87;
    pub const MOD: u8 = 0x97;
    pub const XOR: u8 = 0xa7;
    pub const MOV: u8 = 0xb7;
    pub const ARSH: u8 = 0xc7;
    pub const LDDW: u8 = 0x18;
    pub const JA: u8 = 0x05;
    pub const JEQ: u8 = 0x15;
    pub const JNE: u8 = 0x55;
    pub const JGT: u8 = 0x25;
    pub const JGE: u8 = 0x35;
    pub const JLE: u8 = 0xb5;
    pub const JSGE: u8 = 0x75;
    pub const JSLE: u8 = 0xd5;
    pub const LDX: u8 = 0x61;
    pub const ST: u8 = 0x62;
    pub const STX: u8 = 0x63;
}
/// The operand is a register.
const REG: u8 = 0x08;

/// The steps as instructions, or `None` if one of them is a call or if they need more than `room` instructions.
pub fn compile(steps: &[Step], room: usize) -> Option<Vec<u8>> {
    let mut code = Code::default();
    for step in steps {
        match step {
            Step::Store { to, size, value, repeat } => {
                for (_, to) in places(0, *to, repeat) {
                    code.store_constant(to, *size, *value);
                }
            }
            Step::Copy { from, to, size, repeat } => {
                for (from, to) in places(*from, *to, repeat) {
                    code.load(VALUE, from, *size);
                    code.store(to, *size);
                }
            }
            Step::Convert { from, to, source, target, linear, repeat } => {
                for (from, to) in places(*from, *to, repeat) {
                    code.load(VALUE, from, source.size);
                    code.convert(*source, *target, linear);
                    code.store(to, target.size);
                }
            }
            Step::Call(_) => return None,
        }
        if code.len() > room {
            return None;
        }
    }
    Some(code.bytes)
}

fn places(from: u32, to: u32, repeat: &Repeat) -> impl Iterator<Item = (u32, u32)> {
    let Repeat { count, from_stride, to_stride } = *repeat;
    (0..count).map(move |i| (from + i * from_stride, to + i * to_stride))
}

/// What the number on its way can be.
#[derive(Clone, Copy)]
struct Range {
    /// Whether there is a sign to look at, in [`SIGN`].
    signed: bool,
    /// Its largest magnitude.
    most: u64,
}

#[derive(Default)]
struct Code {
    bytes: Vec<u8>,
}

/// A jump that does not know yet where to.
#[must_use]
struct Jump(usize);

impl Code {
    /// Instructions so far.
    fn len(&self) -> usize {
        self.bytes.len() / INSN
    }

    fn emit(&mut self, opcode: u8, dst: u8, src: u8, off: i16, imm: i32) {
        self.bytes.extend([opcode, dst | src << 4]);
        self.bytes.extend(off.to_le_bytes());
        self.bytes.extend(imm.to_le_bytes());
    }

    fn constant(&mut self, dst: u8, value: u64) {
        match i32::try_from(value as i64) {
            Ok(imm) => self.emit(op::MOV, dst, 0, 0, imm),
            Err(_) => {
                self.emit(op::LDDW, dst, 0, 0, value as u32 as i32);
                self.emit(0, 0, 0, 0, (value >> 32) as u32 as i32);
            }
        }
    }

    fn with_register(&mut self, opcode: u8, dst: u8, src: u8) {
        self.emit(opcode | REG, dst, src, 0, 0);
    }

    /// `opcode` with a constant that may be too large for an instruction.
    fn with_constant(&mut self, opcode: u8, dst: u8, value: u64) {
        match i32::try_from(value as i64) {
            Ok(imm) => self.emit(opcode, dst, 0, 0, imm),
            Err(_) => {
                self.constant(FACTOR, value);
                self.with_register(opcode, dst, FACTOR);
            }
        }
    }

    fn jump(&mut self, opcode: u8, dst: u8, src: u8, imm: i32) -> Jump {
        self.emit(opcode, dst, src, 0, imm);
        Jump(self.len())
    }

    fn land(&mut self, jumps: impl IntoIterator<Item = Jump>) {
        for Jump(next) in jumps {
            // A step is a few dozen instructions.
            let off = (self.len() - next) as i16;
            self.bytes[next * INSN - 6..next * INSN - 4].copy_from_slice(&off.to_le_bytes());
        }
    }

    /// 1, 2, 4 or 8 bytes, as the opcodes of memory have it.
    fn width(opcode: u8, size: u32) -> u8 {
        match size {
            1 => opcode | 0x10,
            2 => opcode | 0x08,
            4 => opcode,
            _ => opcode | 0x18,
        }
    }

    /// Zero-extended. Records have a few kilobytes, so offsets fit.
    fn load(&mut self, dst: u8, from: u32, size: u32) {
        self.emit(Self::width(op::LDX, size), dst, RECORD, from as i16, 0);
    }

    fn store(&mut self, to: u32, size: u32) {
        self.emit(Self::width(op::STX, size), RECORD, VALUE, to as i16, 0);
    }

    fn store_constant(&mut self, to: u32, size: u32, value: u64) {
        if size == 8 && i32::try_from(value as i64).is_err() {
            self.constant(VALUE, value);
            return self.store(to, size);
        }
        // What an instruction has is sign-extended to eight bytes, and cut to fewer.
        self.emit(Self::width(op::ST, size), RECORD, 0, to as i16, value as u32 as i32);
    }

    /// The number just loaded, which is a `source`, becomes what a `target` is to hold.
    fn convert(&mut self, source: Number, target: Number, linear: &Linear) {
        let bits = (source.size * 8) as i32;
        if source.signed
            && bits < 64
            && (*linear != Linear::IDENTITY || target.size > source.size || !target.holds(source))
        {
            self.emit(op::LSH, VALUE, 0, 0, 64 - bits);
            self.emit(op::ARSH, VALUE, 0, 0, 64 - bits);
        }
        if *linear == Linear::IDENTITY {
            return self.fit(source, target);
        }
        // A bool is what its byte says, as the reference has it.
        let mut range = Range { signed: source.signed, most: u64::MAX >> (64 - bits) };
        if source.signed {
            range.most = range.most / 2 + 1;
            self.with_register(op::MOV, SIGN, VALUE);
            self.emit(op::ARSH, SIGN, 0, 0, 63);
            self.with_register(op::XOR, VALUE, SIGN);
            self.with_register(op::SUB, VALUE, SIGN);
        }
        self.plus(linear.pre, &mut range);
        self.times(linear, &mut range);
        self.plus(linear.add, &mut range);
        self.bits(target, range);
    }

    /// Brings a number that is not rescaled into the range of `target`.
    fn fit(&mut self, source: Number, target: Number) {
        if source.signed {
            // Both ends are in the range of s64, or the end is no end.
            if target.max() < i64::MAX as u64 {
                self.constant(SCRATCH, target.max());
                if source.max() > target.max() {
                    let fits = self.jump(op::JSLE | REG, VALUE, SCRATCH, 0);
                    self.with_register(op::MOV, VALUE, SCRATCH);
                    self.land([fits]);
                }
            }
            if source.max_negative() > target.max_negative() {
                self.constant(SCRATCH, target.max_negative().wrapping_neg());
                let fits = self.jump(op::JSGE | REG, VALUE, SCRATCH, 0);
                self.with_register(op::MOV, VALUE, SCRATCH);
                self.land([fits]);
            }
        } else {
            let most = u64::MAX >> (64 - source.size * 8);
            self.at_most(target.max(), most);
        }
    }

    /// No more than `limit`, if it can be more at all.
    fn at_most(&mut self, limit: u64, most: u64) {
        if most > limit {
            self.constant(SCRATCH, limit);
            let fits = self.jump(op::JLE | REG, VALUE, SCRATCH, 0);
            self.with_register(op::MOV, VALUE, SCRATCH);
            self.land([fits]);
        }
    }

    /// Adds a register to the magnitude, saturating if `check`.
    fn add_saturated(&mut self, register: u8, check: bool) {
        self.with_register(op::ADD, VALUE, register);
        if check {
            let fits = self.jump(op::JGE | REG, VALUE, register, 0);
            self.emit(op::MOV, VALUE, 0, 0, -1);
            self.land([fits]);
        }
    }

    fn plus(&mut self, add: i64, range: &mut Range) {
        let magnitude = add.unsigned_abs();
        let sum = range.most.checked_add(magnitude);
        match (range.signed, add.signum()) {
            (_, 0) => return,
            (false, 1) => {
                self.constant(SCRATCH, magnitude);
                self.add_saturated(SCRATCH, sum.is_none());
            }
            (false, _) => {
                self.constant(SCRATCH, magnitude);
                self.emit(op::MOV, SIGN, 0, 0, 0);
                let larger = self.jump(op::JGE | REG, VALUE, SCRATCH, 0);
                self.with_register(op::SUB, SCRATCH, VALUE);
                self.with_register(op::MOV, VALUE, SCRATCH);
                self.emit(op::MOV, SIGN, 0, 0, -1);
                let done = self.jump(op::JA, 0, 0, 0);
                self.land([larger]);
                self.with_register(op::SUB, VALUE, SCRATCH);
                self.land([done]);
                range.signed = true;
                range.most = range.most.max(magnitude);
                return;
            }
            (true, sign) => {
                // A zero with a sign does no harm: all that follows gives the same for it as for one without.
                let sign = if sign < 0 { -1 } else { 0 };
                self.constant(SCRATCH, magnitude);
                let same = self.jump(if sign == 0 { op::JEQ } else { op::JNE }, SIGN, 0, 0);
                let larger = self.jump(op::JGT | REG, VALUE, SCRATCH, 0);
                self.with_register(op::SUB, SCRATCH, VALUE);
                self.with_register(op::MOV, VALUE, SCRATCH);
                self.emit(op::MOV, SIGN, 0, 0, sign);
                let turned = self.jump(op::JA, 0, 0, 0);
                self.land([larger]);
                self.with_register(op::SUB, VALUE, SCRATCH);
                let smaller = self.jump(op::JA, 0, 0, 0);
                self.land([same]);
                self.add_saturated(SCRATCH, sum.is_none());
                self.land([turned, smaller]);
            }
        }
        range.most = sum.unwrap_or(u64::MAX);
    }

    fn times(&mut self, linear: &Linear, range: &mut Range) {
        let (mul, div) = (linear.mul.unsigned_abs(), linear.div.unsigned_abs());
        if div == 1 {
            self.multiply(mul, range.most);
            range.most = range.most.saturating_mul(mul);
        } else {
            self.with_register(op::MOV, OTHER, VALUE);
            self.with_constant(op::MOD, OTHER, div);
            self.with_constant(op::DIV, VALUE, div);
            let whole = range.most / div;
            self.multiply(mul, whole);
            // The rest is less than 2^31, and so is the factor: their product fits.
            self.with_constant(op::MUL, OTHER, mul);
            if linear.away {
                self.with_register(op::MOV, SCRATCH, OTHER);
                self.with_constant(op::MOD, SCRATCH, div);
                self.with_constant(op::DIV, OTHER, div);
                let exact = self.jump(op::JEQ, SCRATCH, 0, 0);
                self.emit(op::ADD, OTHER, 0, 0, 1);
                self.land([exact]);
            } else {
                self.with_constant(op::DIV, OTHER, div);
            }
            let sum = whole.checked_mul(mul).and_then(|w| w.checked_add(mul));
            self.add_saturated(OTHER, sum.is_none());
            range.most = sum.unwrap_or(u64::MAX);
        }
        if linear.mul < 0 {
            if range.signed {
                self.emit(op::XOR, SIGN, 0, 0, -1);
            } else {
                self.emit(op::MOV, SIGN, 0, 0, -1);
                range.signed = true;
            }
        }
    }

    /// Times `mul`, saturating if a magnitude of `most` can go too far.
    fn multiply(&mut self, mul: u64, most: u64) {
        if mul == 1 {
            return;
        }
        if most.checked_mul(mul).is_some() {
            return self.with_constant(op::MUL, VALUE, mul);
        }
        self.constant(SCRATCH, u64::MAX / mul);
        let fits = self.jump(op::JLE | REG, VALUE, SCRATCH, 0);
        self.emit(op::MOV, VALUE, 0, 0, -1);
        let done = self.jump(op::JA, 0, 0, 0);
        self.land([fits]);
        self.with_constant(op::MUL, VALUE, mul);
        self.land([done]);
    }

    /// Sign and magnitude become the nearest number that `target` holds.
    fn bits(&mut self, target: Number, range: Range) {
        if !range.signed {
            return self.at_most(target.max(), range.most);
        }
        let negative = self.jump(op::JNE, SIGN, 0, 0);
        self.at_most(target.max(), range.most);
        let done = self.jump(op::JA, 0, 0, 0);
        self.land([negative]);
        if target.signed {
            self.at_most(target.max_negative(), range.most);
            self.emit(op::NEG, VALUE, 0, 0, 0);
        } else {
            self.emit(op::MOV, VALUE, 0, 0, 0);
        }
        self.land([done]);
    }
}
