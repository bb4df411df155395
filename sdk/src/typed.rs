//! What a policy's BPF half has, with types: settings, statistics and state. The structs that implement these traits are
//! written by `scx_upgrade_build::policy` from the object's own BTF; see [`policy!`](crate::policy!).

use crate::Policy;

/// What a piece of state belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A task.
    Task,
    /// A cgroup.
    Cgroup,
    /// A CPU.
    Cpu,
    /// The policy as a whole.
    Global,
}

impl Scope {
    /// Its name in the engine's setup.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scope::Task => "task",
            Scope::Cgroup => "cgroup",
            Scope::Cpu => "cpu",
            Scope::Global => "global",
        }
    }
}

/// A number, truth value or array of the BPF half, as its bytes.
pub trait Value: Sized {
    /// The bytes as the BPF half has them.
    fn to_bytes(&self) -> Vec<u8>;
    /// The value of such bytes; `None` if they are not as many as it has.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

macro_rules! number {
    ($($ty:ty)*) => {$(
        impl Value for $ty {
            fn to_bytes(&self) -> Vec<u8> {
                self.to_ne_bytes().to_vec()
            }

            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Some(<$ty>::from_ne_bytes(bytes.try_into().ok()?))
            }
        }
    )*};
}

number!(u8 u16 u32 u64 i8 i16 i32 i64);

impl Value for bool {
    fn to_bytes(&self) -> Vec<u8> {
        vec![u8::from(*self)]
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(u8::from_bytes(bytes)? != 0)
    }
}

impl<T: Value, const N: usize> Value for [T; N] {
    fn to_bytes(&self) -> Vec<u8> {
        self.iter().flat_map(Value::to_bytes).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if N == 0 || !bytes.len().is_multiple_of(N) {
            return None;
        }
        let values: Option<Vec<T>> = bytes.chunks(bytes.len() / N).map(T::from_bytes).collect();
        values?.try_into().ok()
    }
}

/// The `const volatile` globals of a BPF half: they are set before it is loaded.
pub trait Settings {
    /// Set all of them.
    fn apply(&self, policy: &mut Policy);
}

/// Something with fields that can be read by name.
pub trait Fields: Sized {
    /// `get` gives a field's bytes; `None` if it lacks one.
    fn read(get: &mut dyn FnMut(&str) -> Option<Vec<u8>>) -> Option<Self>;
}

/// The plain globals of a BPF half, which it counts in.
pub trait Statistics: Fields {}

/// The columns that a policy declares for a scope.
pub trait State: Fields {
    /// Which scope.
    const SCOPE: Scope;
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn values_come_back() {
        assert_eq!(u32::from_bytes(&7u32.to_bytes()), Some(7));
        assert_eq!(i64::from_bytes(&(-7i64).to_bytes()), Some(-7));
        assert_eq!(bool::from_bytes(&true.to_bytes()), Some(true));
        assert_eq!(
            <[[u16; 2]; 3]>::from_bytes(&[[1u16, 2], [3, 4], [5, 6]].to_bytes()),
            Some([[1, 2], [3, 4], [5, 6]])
        );
    }

    #[test]
    fn other_sizes_are_refused() {
        assert_eq!(u32::from_bytes(&[0; 3]), None);
        assert_eq!(<[u32; 2]>::from_bytes(&[0; 7]), None);
        assert_eq!(<[u32; 3]>::from_bytes(&[0; 8]), None);
        assert_eq!(<[u32; 0]>::from_bytes(&[]), None);
    }
}
