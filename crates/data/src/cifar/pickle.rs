//! Reads Python pickles without running anything.
//!
//! A pickle is a program for a stack machine that may call any Python function. This reader knows the instructions that
//! data need (protocols 2 to 5, as `pickletools.py` documents them), keeps calls as a note of what was to be called,
//! and refuses the rest. What it allocates is bounded by the number of its values; byte strings stay in the input.

use std::collections::HashMap;

/// Most values in a file and on the stack; the official ones have 250,000.
const MAX_VALUES: usize = 4_000_000;

/// Place of a value in a [`Pickle`].
pub(super) type Id = usize;

/// A value of a pickle.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// `None`, or a number that no label can be.
    Other,
    Bool(bool),
    Int(i64),
    /// A byte string, Python 2's `str` among them.
    Bytes(&'a [u8]),
    Text(&'a str),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// Something by the name of its module and its own.
    Global(&'a [u8], &'a [u8]),
    /// What a call would give, with the state that would be set after.
    Call {
        callable: Id,
        arguments: Id,
        state: Option<Id>,
    },
}

/// All values of a pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads the values; the error says what is wrong, and at which byte.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.first() != Some(&0x80) {
            return Err("it is not a pickle of protocol 2 to 5".to_string());
        }
        let mut machine =
            Machine { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        let root = machine.run().map_err(|reason| format!("{reason} at byte {}", machine.at))?;
        Ok(Self { values: machine.values, root })
    }

    pub(super) fn root(&self) -> &Value<'a> {
        &self.values[self.root]
    }

    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id]
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
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
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => self.protocol()?,
                0x95 => _ = self.take(8)?, // A frame only says how far to read ahead.
                b'(' => self.marks.push(self.stack.len()),
                b'0' => _ = self.pop()?,
                b'1' => _ = self.pop_to_mark()?,
                b'h' | b'j' | b'q' | b'r' | 0x94 => self.remember_or_recall(opcode)?,
                b'N' | b'G' | 0x88 | 0x89 | b'J' | b'K' | b'M' | 0x8a => self.scalar(opcode)?,
                b'U' | b'T' | b'C' | b'B' | 0x8e | 0x96 | b'X' | 0x8c | 0x8d => self.string(opcode)?,
                b']' | b'a' | b'e' | b'l' | b')' | b't' | 0x85..=0x87 => self.sequence(opcode)?,
                b'}' | b'd' | b's' | b'u' => self.dict(opcode)?,
                b'c' | 0x93 | b'R' | b'b' => self.object(opcode)?,
                _ => return Err(format!("pickle instruction 0x{opcode:02x}, which data of this kind do not need,")),
            }
            // Marks and references take a place without making a value.
            if self.stack.len() + self.marks.len() > MAX_VALUES {
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
            if self.memo.len() > MAX_VALUES {
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
                let num_bytes = self.byte()?;
                Value::Int(self.long(usize::from(num_bytes))?)
            }
        };
        self.push(value)
    }

    /// A two's complement number of up to eight bytes, least first.
    fn long(&mut self, num_bytes: usize) -> Step<i64> {
        let bytes = self.take(num_bytes)?;
        let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all.get_mut(..num_bytes).ok_or("a number of more than 8 bytes")?.copy_from_slice(bytes);
        Ok(i64::from_le_bytes(all))
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
            Value::Dict(dict) => dict.extend(pairs),
            _ => return Err("keys for what is no dict".to_string()),
        }
        Ok(())
    }

    fn object(&mut self, opcode: u8) -> Step {
        match opcode {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(module, name))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module], &self.values[name]) {
                    (Value::Text(module), Value::Text(name)) => {
                        let global = Value::Global(module.as_bytes(), name.as_bytes());
                        self.push(global)
                    }
                    _ => Err("a name that is no text".to_string()),
                }
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.push(Value::Call { callable, arguments, state: None })
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

    fn push(&mut self, value: Value<'a>) -> Step {
        if self.values.len() >= MAX_VALUES {
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
