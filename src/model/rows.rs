//! Structs of tensors that share their rows: copying, selecting, joining and writing into them, defined once.
//!
//! [`rows!`] implements [`Rows`] for a struct whose fields all are `Rows`; a tensor is the simplest one.

use std::convert::Infallible;

use tch::{Tensor, no_grad};

/// Tensors whose first axis counts the same rows, B.
pub trait Rows: Sized {
    /// Shows every tensor to `each`, in the order of the fields.
    fn for_each_tensor<'a>(&'a self, each: &mut impl FnMut(&'a Tensor));

    /// The same struct of what `map` makes of its tensors, in the order of the fields.
    ///
    /// # Errors
    /// The first one of `map`, which ends it.
    fn try_map_tensors<E>(&self, map: &mut impl FnMut(&Tensor) -> Result<Tensor, E>) -> Result<Self, E>;

    /// [`Rows::try_map_tensors`] where nothing can fail.
    fn map_tensors(&self, mut map: impl FnMut(&Tensor) -> Tensor) -> Self {
        let Ok(mapped) = self.try_map_tensors(&mut |t: &Tensor| Ok::<_, Infallible>(map(t)));
        mapped
    }

    /// [`Rows::map_tensors`] over the tensors of two structs in pairs.
    fn zip_tensors(&self, other: &Self, mut map: impl FnMut(&Tensor, &Tensor) -> Tensor) -> Self {
        let mut others = other.tensors().into_iter();
        self.map_tensors(|t| map(t, others.next().expect("two values of a type have the same tensors")))
    }

    /// Every tensor, in the order of the fields.
    fn tensors(&self) -> Vec<&Tensor> {
        let mut all = Vec::new();
        self.for_each_tensor(&mut |t| all.push(t));
        all
    }

    /// The same memory under another handle.
    fn shallow_clone(&self) -> Self {
        self.map_tensors(Tensor::shallow_clone)
    }

    /// The same values in memory of their own.
    fn copy(&self) -> Self {
        self.map_tensors(Tensor::copy)
    }

    /// Copies the values of another one of the same shapes into this one's memory.
    fn assign(&self, other: &Self) {
        no_grad(|| {
            for (to, from) in self.tensors().into_iter().zip(other.tensors()) {
                to.shallow_clone().copy_(from);
            }
        });
    }

    /// Rows `first..first + rows`, in the same memory.
    fn narrow_rows(&self, first: i64, rows: i64) -> Self {
        self.map_tensors(|t| t.narrow(0, first, rows))
    }

    /// These rows, in this order. `rows`: `[n]`, int64, each below B.
    fn select_rows(&self, rows: &Tensor) -> Self {
        self.map_tensors(|t| t.index_select(0, rows))
    }

    /// Row by row: `other` where `take`, else `self`. `take`: `[B]`, bool.
    fn replace_rows(&self, take: &Tensor, other: &Self) -> Self {
        self.zip_tensors(other, |mine, theirs| {
            let mut shape = vec![1; mine.dim()];
            shape[0] = -1;
            theirs.where_self(&take.view(shape.as_slice()), mine)
        })
    }

    /// The rows of several, one after the other; at least one.
    fn joined(parts: &[&Self]) -> Self {
        let mut columns: Vec<_> = parts.iter().map(|part| part.tensors().into_iter()).collect();
        parts[0].map_tensors(|_| Tensor::cat(&columns.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>(), 0))
    }
}

impl Rows for Tensor {
    fn for_each_tensor<'a>(&'a self, each: &mut impl FnMut(&'a Tensor)) {
        each(self);
    }

    fn try_map_tensors<E>(&self, map: &mut impl FnMut(&Tensor) -> Result<Tensor, E>) -> Result<Self, E> {
        map(self)
    }
}

impl<T: Rows> Rows for Option<T> {
    fn for_each_tensor<'a>(&'a self, each: &mut impl FnMut(&'a Tensor)) {
        self.iter().for_each(|t| t.for_each_tensor(each));
    }

    fn try_map_tensors<E>(&self, map: &mut impl FnMut(&Tensor) -> Result<Tensor, E>) -> Result<Self, E> {
        self.as_ref().map(|t| t.try_map_tensors(map)).transpose()
    }
}

impl<T: Rows> Rows for Vec<T> {
    fn for_each_tensor<'a>(&'a self, each: &mut impl FnMut(&'a Tensor)) {
        self.iter().for_each(|t| t.for_each_tensor(each));
    }

    fn try_map_tensors<E>(&self, map: &mut impl FnMut(&Tensor) -> Result<Tensor, E>) -> Result<Self, E> {
        self.iter().map(|t| t.try_map_tensors(map)).collect()
    }
}

/// Implements [`Rows`] for a struct, given all of its fields.
macro_rules! rows {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::model::Rows for $name {
            fn for_each_tensor<'a>(&'a self, each: &mut impl FnMut(&'a ::tch::Tensor)) {
                $($crate::model::Rows::for_each_tensor(&self.$field, each);)+
            }

            fn try_map_tensors<E>(
                &self,
                map: &mut impl FnMut(&::tch::Tensor) -> Result<::tch::Tensor, E>,
            ) -> Result<Self, E> {
                Ok(Self { $($field: $crate::model::Rows::try_map_tensors(&self.$field, map)?),+ })
            }
        }
    };
}
pub(crate) use rows;

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair {
        wide: Tensor,
        flat: Option<Tensor>,
    }
    rows!(Pair { wide, flat });

    /// `wide`: `[rows, 2]`, `flat`: `[rows]`, counting up from `from`.
    fn pair(from: i64, rows: i64) -> Pair {
        let wide: Vec<i64> = (from..from + 2 * rows).collect();
        let flat: Vec<i64> = (from..from + rows).collect();
        Pair { wide: Tensor::from_slice(&wide).view([rows, 2]), flat: Some(Tensor::from_slice(&flat)) }
    }

    fn values(pair: &Pair) -> Vec<Vec<i64>> {
        pair.tensors().into_iter().map(|t| Vec::try_from(t.reshape([-1])).unwrap()).collect()
    }

    #[test]
    fn rows_are_narrowed_selected_replaced_and_joined() {
        let pair_of = pair(0, 3);
        assert_eq!(values(&pair_of.narrow_rows(1, 2)), [vec![2, 3, 4, 5], vec![1, 2]]);
        assert_eq!(values(&pair_of.select_rows(&Tensor::from_slice(&[2i64, 0]))), [vec![4, 5, 0, 1], vec![2, 0]]);
        let take = Tensor::from_slice(&[false, true, false]);
        assert_eq!(values(&pair_of.replace_rows(&take, &pair(10, 3))), [vec![0, 1, 12, 13, 4, 5], vec![0, 11, 2]]);
        assert_eq!(values(&Rows::joined(&[&pair(0, 1), &pair(5, 2)])), [vec![0, 1, 5, 6, 7, 8], vec![0, 5, 6]]);
    }

    #[test]
    fn a_shallow_clone_shares_memory_and_a_copy_does_not() {
        let original = pair(0, 2);
        let (shared, own) = (original.shallow_clone(), original.copy());
        original.assign(&pair(5, 2));
        assert_eq!(values(&shared), [vec![5, 6, 7, 8], vec![5, 6]]);
        assert_eq!(values(&own), [vec![0, 1, 2, 3], vec![0, 1]]);
    }

    #[test]
    fn the_first_error_ends_a_map() {
        let mut seen = 0;
        let mapped = pair(0, 1).try_map_tensors(&mut |_| {
            seen += 1;
            Err::<Tensor, _>(seen)
        });
        assert_eq!(mapped.err(), Some(1));
    }
}
