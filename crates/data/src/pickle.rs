//! Reads Python pickles without running anything.
//!
//! A pickle is a program for a stack machine that may call any Python function. This reader knows the instructions that
//! data need (protocols 2 to 5, as `pickletools.py` documents them), keeps calls as a note of what was to be called,
//! and refuses the rest. What it allocates is bounded by the number of its values; byte strings stay in the input, and
//! nothing recurses, however deep the values are nested.

use std::collections::HashMap;

/// Place of a value in a [`Pickle`].
pub type Id = usize;

/// A value of a pickle.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// `None`, a fraction, or an integer of more than 64 bits.
    Other,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A byte string, Python 2's `str` among them.
    Bytes(&'a [u8]),
    /// A Unicode string.
    Text(&'a str),
    /// A list.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dict's keys and values in the order written; a key may come twice.
    Dict(Vec<(Id, Id)>),
    /// Something by the name of its module and its own.
    Global(&'a [u8], &'a [u8]),
    /// What the file's reader is asked to supply for a persistent name.
    Persistent(Id),
    /// What a call would give.
    Call {
        /// What was to be called.
        callable: Id,
        /// Its arguments, normally a tuple.
        arguments: Id,
        /// The state that would be set after.
        state: Option<Id>,
        /// Keys and values that would be set after.
        items: Vec<(Id, Id)>,
    },
}

/// What a pickle may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most values, and most places on the stack and in the memo.
    pub max_values: usize,
    /// Whether it may name this object of this module. Naming runs nothing, but a name that nobody expects shows what
    /// the file is.
    pub may_name: fn(module: &[u8], name: &[u8]) -> bool,
}

/// All values of a pickle.
#[derive(Debug)]
pub struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
    num_bytes: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the values of the pickle that `bytes` start with.
    ///
    /// # Errors
    /// Says what is wrong or refused, and at which byte.
    pub fn parse(bytes: &'a [u8], limits: Limits) -> Result<Self, String> {
        if bytes.first() != Some(&0x80) {
            return Err("it is not a pickle of protocol 2 to 5".to_string());
        }
        let mut machine = Machine {
            bytes,
            limits,
            at: 0,
            opcode_at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let root = machine.run().map_err(|reason| format!("{reason} at byte {}", machine.opcode_at))?;
        Ok(Self { values: machine.values, root, num_bytes: machine.at })
    }

    /// The outermost value.
    pub fn root(&self) -> Id {
        self.root
    }

    /// All values, in the order written.
    pub fn values(&self) -> &[Value<'a>] {
        &self.values
    }

    /// The value at a place that this pickle has given.
    pub fn value(&self, id: Id) -> &Value<'a> {
        self.values.get(id).unwrap_or(&Value::Other)
    }

    /// The items of a list or tuple; none of anything else.
    pub fn items(&self, id: Id) -> &[Id] {
        match self.value(id) {
            Value::List(items) | Value::Tuple(items) => items,
            _ => &[],
        }
    }

    /// Length of the pickle; more may follow it.
    pub fn num_bytes(&self) -> usize {
        self.num_bytes
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    limits: Limits,
    at: usize,
    /// Where the instruction starts that is being followed.
    opcode_at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at which a mark lies.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

type Step<T = ()> = Result<T, String>;

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<Id> {
        loop {
            self.opcode_at = self.at;
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => self.protocol()?,
                0x95 => _ = self.take(8)?, // A frame only says how far to read ahead.
                b'(' => self.marks.push(self.stack.len()),
                b'0' => _ = self.pop()?,
                b'1' => _ = self.pop_to_mark()?,
                b'h' | b'j' | b'q' | b'r' | 0x94 => self.remember_or_recall(opcode)?,
                b'N' | b'G' | 0x88 | 0x89 | b'J' | b'K' | b'M' | 0x8a | 0x8b => self.scalar(opcode)?,
                b'U' | b'T' | b'C' | b'B' | 0x8e | 0x96 | b'X' | 0x8c | 0x8d => self.string(opcode)?,
                b']' | b'a' | b'e' | b'l' | b')' | b't' | 0x85..=0x87 => self.sequence(opcode)?,
                b'}' | b'd' | b's' | b'u' => self.dict(opcode)?,
                b'c' | 0x93 | b'R' | 0x81 | b'b' | b'Q' => self.object(opcode)?,
                _ => return Err(format!("pickle instruction 0x{opcode:02x}, which data of this kind do not need,")),
            }
            // Marks and references take a place without making a value.
            if self.stack.len() + self.marks.len() > self.limits.max_values {
                return Err("too many values".to_string());
            }
        }
    }

    fn protocol(&mut self) -> Step {
        match self.byte()? {
            2..=5 => Ok(()),
            version => Err(format!("pickle protocol {version}, only 2 to 5 are read,")),
        }
    }

    fn remember_or_recall(&mut self, opcode: u8) -> Step {
        let key = match opcode {
            b'h' | b'q' => u64::from(self.byte()?),
            b'j' | b'r' => self.length(4)?,
            _ => self.memo.len() as u64,
        };
        if matches!(opcode, b'h' | b'j') {
            let id = *self.memo.get(&key).ok_or("a reference to nothing")?;
            self.stack.push(id);
        } else {
            let id = *self.stack.last().ok_or("an empty stack")?;
            self.memo.insert(key, id);
            if self.memo.len() > self.limits.max_values {
                return Err("too many values".to_string());
            }
        }
        Ok(())
    }

    fn scalar(&mut self, opcode: u8) -> Step {
        let value = match opcode {
            b'N' => Value::Other,
            b'G' => {
                self.take(8)?;
                Value::Other
            }
            0x88 | 0x89 => Value::Bool(opcode == 0x88),
            b'J' => Value::Int(i64::from(self.length(4)? as u32 as i32)),
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(self.length(2)? as i64),
            _ => {
                let num_bytes = self.length(if opcode == 0x8a { 1 } else { 4 })?;
                self.long(num_bytes)?
            }
        };
        self.push(value)
    }

    /// A two's complement number, least byte first.
    fn long(&mut self, num_bytes: u64) -> Step<Value<'a>> {
        let bytes = self.take(usize::try_from(num_bytes).map_err(|_| "a number longer than the file")?)?;
        let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        Ok(match all.get_mut(..bytes.len()) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(all))
            }
            None => Value::Other,
        })
    }

    fn string(&mut self, opcode: u8) -> Step {
        let length_bytes = match opcode {
            b'U' | b'C' | 0x8c => 1,
            b'T' | b'B' | b'X' => 4,
            _ => 8,
        };
        let length = self.length(length_bytes)?;
        let bytes = self.take(usize::try_from(length).map_err(|_| "a string longer than the file")?)?;
        self.push(match opcode {
            b'X' | 0x8c | 0x8d => Value::Text(std::str::from_utf8(bytes).map_err(|_| "text that is not UTF-8")?),
            _ => Value::Bytes(bytes),
        })
    }

    fn sequence(&mut self, opcode: u8) -> Step {
        match opcode {
            b']' => self.push(Value::List(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            b'l' | b't' => {
                let items = self.pop_to_mark()?;
                self.push(if opcode == b'l' { Value::List(items) } else { Value::Tuple(items) })
            }
            b'a' | b'e' => {
                let mut items = if opcode == b'a' { vec![self.pop()?] } else { self.pop_to_mark()? };
                match self.top()? {
                    Value::List(list) => list.append(&mut items),
                    _ => return Err("items for what is no list".to_string()),
                }
                Ok(())
            }
            _ => {
                let length = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(length).ok_or("an empty stack")?;
                let items = self.stack.split_off(start);
                self.push(Value::Tuple(items))
            }
        }
    }

    fn dict(&mut self, opcode: u8) -> Step {
        let mut flat = match opcode {
            b'}' => Vec::new(),
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_to_mark()?,
        };
        if flat.len() % 2 == 1 {
            return Err("a key without a value".to_string());
        }
        let mut pairs = flat.drain(..);
        let pairs = std::iter::from_fn(|| Some((pairs.next()?, pairs.next()?)));
        if matches!(opcode, b'}' | b'd') {
            let pairs = pairs.collect();
            return self.push(Value::Dict(pairs));
        }
        match self.top()? {
            Value::Dict(items) | Value::Call { items, .. } => items.extend(pairs),
            _ => return Err("keys for what is no dict".to_string()),
        }
        Ok(())
    }

    fn object(&mut self, opcode: u8) -> Step {
        match opcode {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module], &self.values[name]) {
                    (Value::Text(module), Value::Text(name)) => self.global(module.as_bytes(), name.as_bytes()),
                    _ => Err("a name that is no text".to_string()),
                }
            }
            // Making an object of a class is a call of it as well.
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.push(Value::Call { callable, arguments, state: None, items: Vec::new() })
            }
            b'Q' => {
                let name = self.pop()?;
                self.push(Value::Persistent(name))
            }
            _ => {
                let new_state = self.pop()?;
                match self.top()? {
                    Value::Call { state, .. } => *state = Some(new_state),
                    _ => return Err("a state for what is no object".to_string()),
                }
                Ok(())
            }
        }
    }

    fn global(&mut self, module: &'a [u8], name: &'a [u8]) -> Step {
        if !(self.limits.may_name)(module, name) {
            let shown = |name: &[u8]| String::from_utf8_lossy(name).escape_debug().take(80).collect::<String>();
            return Err(format!("it names the global {}.{}", shown(module), shown(name)));
        }
        self.push(Value::Global(module, name))
    }

    fn push(&mut self, value: Value<'a>) -> Step {
        if self.values.len() >= self.limits.max_values {
            return Err("too many values".to_string());
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Step<Id> {
        // What lies below a mark is out of reach until the mark is gone.
        if self.marks.last().is_some_and(|mark| self.stack.len() <= *mark) {
            return Err("an empty stack".to_string());
        }
        self.stack.pop().ok_or_else(|| "an empty stack".to_string())
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark")?;
        if mark > self.stack.len() {
            return Err("a mark above the stack".to_string());
        }
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Step<&mut Value<'a>> {
        let id = *self.stack.last().ok_or("an empty stack")?;
        Ok(&mut self.values[id])
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned number of so many bytes, least first.
    fn length(&mut self, num_bytes: usize) -> Step<u64> {
        let bytes = self.take(num_bytes)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take(256).position(|byte| *byte == b'\n').ok_or("a name without an end")?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("the pickle is truncated")?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }
}
