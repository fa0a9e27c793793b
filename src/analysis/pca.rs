//! Principal components of a cloud of points:
//!
//! ```text
//! C = X − mean(X)        C = U Σ Vᵀ (exact SVD)        components = the first rows of Vᵀ
//! explained variance_k = σ_k² / (n − 1)                 projection of x = (x − mean) · components
//! ```
//!
//! A component's sign is free; as in scikit-learn, its entry of largest magnitude is made positive. Upstream calls
//! scikit-learn, which for these shapes draws an unseeded randomised SVD; this one is exact, so the two differ by the
//! randomised solver's own error.
//!
//! Points of a trace are long (about 42,000 numbers) and few, so the SVD is taken through the smaller of the two Gram
//! matrices, C Cᵀ or Cᵀ C, in f64 and block by block: a cloud of f32 points is never copied to f64 as a whole.

use tch::{Kind, Tensor};
use thiserror::Error;

/// Columns that are widened to f64 at a time.
const BLOCK: i64 = 4096;

/// Why a cloud of points has no principal components.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each variant's message says it")]
pub enum PcaError {
    #[error("PCA needs a matrix [points, numbers] of floating-point values, got {kind:?} of shape {shape:?}")]
    NotAMatrix { shape: Vec<i64>, kind: Kind },
    #[error("PCA needs at least 2 points, got {points}: record more segments or more puzzles")]
    TooFewPoints { points: i64 },
    #[error("{wanted} components of {points} points of {numbers} numbers were requested: at most {} exist", points.min(numbers))]
    TooManyComponents { wanted: i64, points: i64, numbers: i64 },
    #[error("the points hold NaN or infinite values: the model's states have diverged")]
    NotFinite,
    #[error("points of {found} numbers cannot be projected with a PCA of {wanted} numbers")]
    WrongWidth { found: i64, wanted: i64 },
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

/// A fitted PCA.
#[derive(Debug)]
pub struct Pca {
    /// Shape `[D]`, f64.
    pub mean: Tensor,
    /// Orthonormal rows; a row is all zeros where the cloud has no variance left. Shape `[k, D]`, f64.
    pub components: Tensor,
    /// Descending. Length k.
    pub singular_values: Vec<f64>,
    /// `singular_values² / (n − 1)`. Length k.
    pub explained_variance: Vec<f64>,
    /// Share of the cloud's whole variance; all 0 for a cloud of equal points. Length k.
    pub explained_variance_ratio: Vec<f64>,
}

impl Pca {
    /// Fits the first `k` components.
    ///
    /// ```
    /// # use hrm::analysis::pca::Pca;
    /// use tch::Tensor;
    /// let points = Tensor::from_slice(&[0.0_f64, 0.0, 1.0, 1.0, 2.0, 2.0]).view([3, 2]);
    /// let pca = Pca::fit(&points, 1)?;
    /// assert!((pca.explained_variance_ratio[0] - 1.0).abs() < 1e-12);
    /// assert_eq!(pca.project(&points)?.size(), [3, 1]);
    /// # anyhow::Ok(())
    /// ```
    ///
    /// # Shapes
    /// - points: `[n, D]`, any floating-point dtype and device, n ≥ 2, k ≤ min(n, D)
    pub fn fit(points: &Tensor, k: usize) -> Result<Self, PcaError> {
        let (n, d) = matrix_size(points)?;
        let wanted = i64::try_from(k).unwrap_or(i64::MAX);
        if n < 2 {
            return Err(PcaError::TooFewPoints { points: n });
        }
        if wanted > n.min(d) {
            return Err(PcaError::TooManyComponents { wanted, points: n, numbers: d });
        }
        let _no_grad = tch::no_grad_guard();
        let mean = points.f_mean_dim([0_i64].as_slice(), false, Kind::Double)?; // [D]
        if mean.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(PcaError::NotFinite);
        }
        let cloud = Cloud { points, mean: &mean, d };

        let components = if n <= d { cloud.through_points(n, wanted)? } else { cloud.through_numbers(wanted)? }; // [k, D]
        let components = with_fixed_signs(&orthonormal_rows(&components)?)?;
        // σ from the components themselves: more digits than the root of a Gram eigenvalue has.
        let sigma2 =
            cloud.times(&components)?.f_square()?.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?;
        let singular_values: Vec<f64> = Vec::try_from(&sigma2.f_sqrt()?.f_to_device(tch::Device::Cpu)?)?;
        let freedom = (n - 1) as f64;
        let explained_variance: Vec<f64> = singular_values.iter().map(|s| s * s / freedom).collect();
        let total = cloud.sum_of_squares()? / freedom;
        let explained_variance_ratio =
            explained_variance.iter().map(|v| if total > 0.0 { v / total } else { 0.0 }).collect();
        Ok(Self { mean, components, singular_values, explained_variance, explained_variance_ratio })
    }

    /// Coordinates of points along the components.
    ///
    /// # Shapes
    /// - points: `[m, D]`, any floating-point dtype
    /// - result: `[m, k]`, f64
    pub fn project(&self, points: &Tensor) -> Result<Tensor, PcaError> {
        let (_, found) = matrix_size(points)?;
        let wanted = self.mean.size1()?;
        if found != wanted {
            return Err(PcaError::WrongWidth { found, wanted });
        }
        let _no_grad = tch::no_grad_guard();
        Cloud { points, mean: &self.mean, d: wanted }.times(&self.components)
    }
}

/// Points with their mean taken off lazily, a block of columns at a time.
struct Cloud<'a> {
    points: &'a Tensor,
    mean: &'a Tensor,
    d: i64,
}

impl Cloud<'_> {
    /// Centred columns `from..from + width`. Shape `[n, width]`, f64.
    fn block(&self, from: i64, width: i64) -> Result<Tensor, PcaError> {
        let columns = self.points.f_narrow(1, from, width)?.f_to_kind(Kind::Double)?;
        Ok(columns.f_sub(&self.mean.f_narrow(0, from, width)?)?)
    }

    fn blocks(&self) -> impl Iterator<Item = (i64, i64)> + use<> {
        let d = self.d;
        (0..d).step_by(BLOCK as usize).map(move |from| (from, BLOCK.min(d - from)))
    }

    /// `C · rowsᵀ`. rows: `[k, D]`, result `[n, k]`.
    fn times(&self, rows: &Tensor) -> Result<Tensor, PcaError> {
        let (n, k) = (self.points.size()[0], rows.size()[0]);
        let mut sum = Tensor::f_zeros([n, k], (Kind::Double, self.points.device()))?;
        for (from, width) in self.blocks() {
            sum = sum.f_add(&self.block(from, width)?.f_matmul(&rows.f_narrow(1, from, width)?.f_tr()?)?)?;
        }
        Ok(sum)
    }

    fn sum_of_squares(&self) -> Result<f64, PcaError> {
        let mut sum = 0.0;
        for (from, width) in self.blocks() {
            sum += self.block(from, width)?.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        }
        Ok(sum)
    }

    /// Few points: eigenvectors u of C Cᵀ `[n, n]`, then v = Cᵀ u / σ. Result `[k, D]`.
    fn through_points(&self, n: i64, k: i64) -> Result<Tensor, PcaError> {
        let mut gram = Tensor::f_zeros([n, n], (Kind::Double, self.points.device()))?;
        for (from, width) in self.blocks() {
            let block = self.block(from, width)?;
            gram = gram.f_add(&block.f_matmul(&block.f_tr()?)?)?;
        }
        let u = leading_eigenvectors(&gram, k)?; // [k, n]
        let parts: Vec<Tensor> = self
            .blocks()
            .map(|(from, width)| Ok(u.f_matmul(&self.block(from, width)?)?))
            .collect::<Result<_, PcaError>>()?;
        Ok(Tensor::f_cat(&parts, 1)?)
    }

    /// Few numbers: eigenvectors of Cᵀ C `[D, D]`. Result `[k, D]`, each row scaled by its σ.
    fn through_numbers(&self, k: i64) -> Result<Tensor, PcaError> {
        let block = self.block(0, self.d)?; // [n, D]
        let v = leading_eigenvectors(&block.f_tr()?.f_matmul(&block)?, k)?; // [k, D]
        let sigma =
            block.f_matmul(&v.f_tr()?)?.f_square()?.f_sum_dim_intlist([0_i64].as_slice(), true, Kind::Double)?; // [1, k]
        Ok(v.f_mul(&sigma.f_sqrt()?.f_tr()?)?)
    }
}

/// Eigenvectors of the `k` largest eigenvalues of a symmetric matrix, as rows, largest first. Result `[k, side]`.
fn leading_eigenvectors(symmetric: &Tensor, k: i64) -> Result<Tensor, PcaError> {
    let (_, vectors) = symmetric.f_linalg_eigh("L")?; // ascending, in columns
    let side = symmetric.size()[0];
    Ok(vectors.f_narrow(1, side - k, k)?.f_tr()?.f_flip([0_i64])?)
}

/// Gram-Schmidt, twice over for f64's full precision. Rows that are nothing but rounding become zeros.
fn orthonormal_rows(rows: &Tensor) -> Result<Tensor, PcaError> {
    let k = rows.size()[0];
    let mut done: Vec<Tensor> = Vec::new();
    let mut largest = 0.0_f64;
    for i in 0..k {
        let mut row = rows.f_select(0, i)?;
        let length = row.f_norm()?.f_double_value(&[])?;
        largest = largest.max(length);
        if length <= 1e-9 * largest || length == 0.0 {
            done.push(row.f_zeros_like()?);
            continue;
        }
        for _ in 0..2 {
            for other in &done {
                row = row.f_sub(&other.f_mul(&other.f_dot(&row)?)?)?;
            }
            row = row.f_div(&row.f_norm()?)?;
        }
        done.push(row);
    }
    if done.is_empty() { Ok(rows.shallow_clone()) } else { Ok(Tensor::f_stack(&done, 0)?) }
}

/// Each row's entry of largest magnitude becomes positive.
fn with_fixed_signs(rows: &Tensor) -> Result<Tensor, PcaError> {
    if rows.size()[0] == 0 {
        return Ok(rows.shallow_clone());
    }
    let at = rows.f_abs()?.f_argmax(1, true)?; // [k, 1]
    let sign = rows.f_gather(1, &at, false)?.f_sign()?; // [k, 1]
    Ok(rows.f_mul(&sign)?)
}

/// Points and numbers of a matrix of floating-point values.
fn matrix_size(points: &Tensor) -> Result<(i64, i64), PcaError> {
    let shape = points.size();
    match (shape.as_slice(), points.f_is_floating_point()?) {
        (&[n, d], true) => Ok((n, d)),
        _ => Err(PcaError::NotAMatrix { shape, kind: points.kind() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a line y = 2x (plus a constant): one component, all the variance.
    #[test]
    fn a_line_has_one_component() {
        let points = Tensor::from_slice(&[1.0_f64, 5.0, 2.0, 7.0, 4.0, 11.0]).view([3, 2]);
        let pca = Pca::fit(&points, 2).unwrap();
        let first: Vec<f64> = Vec::try_from(pca.components.get(0)).unwrap();
        let unit = 1.0 / 5.0_f64.sqrt();
        assert!((first[0] - unit).abs() < 1e-14 && (first[1] - 2.0 * unit).abs() < 1e-14, "{first:?}");
        assert!((pca.explained_variance_ratio[0] - 1.0).abs() < 1e-14);
        assert_eq!(Vec::<f64>::try_from(pca.components.get(1)).unwrap(), [0.0, 0.0]);
    }

    /// More numbers than points and more points than numbers take different ways to the same SVD.
    #[test]
    fn both_gram_matrices_agree_with_torch_svd() {
        for (n, d) in [(7, 40), (40, 7), (9, 9)] {
            tch::manual_seed(n * 100 + d);
            let points = Tensor::randn([n, d], (Kind::Double, tch::Device::Cpu)) + 3.0;
            let pca = Pca::fit(&points, 3).unwrap();
            let centred = &points - points.mean_dim([0_i64].as_slice(), true, Kind::Double);
            let (_, s, v) = centred.svd(true, true); // v: [d, min(n, d)]
            let s: Vec<f64> = Vec::try_from(s).unwrap();
            for (k, sigma) in s.iter().take(3).enumerate() {
                assert!((pca.singular_values[k] - sigma).abs() < 1e-12 * s[0], "n {n}, d {d}, component {k}");
                let cosine = v.select(1, k as i64).dot(&pca.components.get(k as i64)).abs().double_value(&[]);
                assert!((cosine - 1.0).abs() < 1e-10, "n {n}, d {d}, component {k}: cosine {cosine}");
            }
        }
    }

    #[test]
    fn equal_points_have_no_variance_and_bad_input_is_an_error() {
        let same = Tensor::ones([4, 6], (Kind::Float, tch::Device::Cpu));
        let pca = Pca::fit(&same, 2).unwrap();
        assert_eq!(pca.explained_variance_ratio, [0.0, 0.0]);
        assert_eq!(pca.project(&same).unwrap().abs().max().double_value(&[]), 0.0);

        let message = |r: Result<Pca, PcaError>| r.unwrap_err().to_string();
        assert!(message(Pca::fit(&same.narrow(0, 0, 1), 1)).contains("at least 2 points"));
        assert!(message(Pca::fit(&same, 5)).contains("at most 4 exist"));
        assert!(message(Pca::fit(&same.to_kind(Kind::Int), 1)).contains("Int"));
        assert!(message(Pca::fit(&(&same * f64::NAN), 1)).contains("NaN"));
        let narrow = pca.project(&same.narrow(1, 0, 3)).unwrap_err().to_string();
        assert!(narrow.contains("points of 3 numbers"), "{narrow}");
    }
}
