"""Algorithms in the language of matrices, for `dml.py`: data in, a fixed number of steps, one matrix or number out."""

from __future__ import annotations

LINEAR_REGRESSION_CG = """
r = -(t(X) %*% y)
p = -r
norm = sum(r * r)
beta = matrix(0, ncol(X), 1)
for (i in 1:13) {
  q = t(X) %*% (X %*% p) + 0.001 * p
  a = norm / sum(p * q)
  beta = beta + a * p
  r = r + a * q
  old = norm
  norm = sum(r * r)
  p = -r + (norm / old) * p
}
result = beta
"""

LINEAR_REGRESSION_DS = """
A = t(X) %*% X + diag(matrix(0.001, ncol(X), 1))
result = solve(A, t(X) %*% y)
"""

L2_SVM = """
sign = 2 * (y > 0) - 1
w = matrix(0, ncol(X), 1)
Xw = matrix(0, nrow(X), 1)
gradient = t(X) %*% sign
s = gradient
for (outer in 1:6) {
  Xd = X %*% s
  wd = 0.01 * sum(w * s)
  dd = 0.01 * sum(s * s)
  step = 0
  for (inner in 1:4) {
    out = 1 - sign * (Xw + step * Xd)
    inside = out > 0
    g = wd + step * dd - sum(out * inside * sign * Xd)
    h = dd + sum(Xd * inside * Xd)
    step = step - g / h
  }
  w = w + step * s
  Xw = Xw + step * Xd
  out = 1 - sign * Xw
  out = (out > 0) * out
  next = t(X) %*% (out * sign) - 0.01 * w
  s = (sum(next ^ 2) / sum(gradient ^ 2)) * s + next
  gradient = next
}
result = w
"""

MULTINOMIAL_REGRESSION = """
B = matrix(0, ncol(X), ncol(Y))
for (outer in 1:5) {
  E = exp(X %*% B)
  P = E / (1 + rowSums(E))
  G = t(X) %*% (P - Y) + 0.01 * B
  D = matrix(0, ncol(X), ncol(Y))
  R = -G
  V = R
  norm = sum(R ^ 2)
  for (inner in 1:4) {
    Q = P * (X %*% V)
    HV = t(X) %*% (Q - P * rowSums(Q)) + 0.01 * V
    a = norm / sum(V * HV)
    D = D + a * V
    R = R - a * HV
    old = norm
    norm = sum(R ^ 2)
    V = R + (norm / old) * V
  }
  B = B + D
}
result = B
"""

K_MEANS = """
C = X[1:5, ]
for (i in 1:10) {
  D = -2 * (X %*% t(C)) + t(rowSums(C ^ 2))
  nearest = rowMins(D)
  P = D <= nearest
  P = P / rowSums(P)
  C = (t(P) %*% X) / t(colSums(P))
}
result = C
"""

PCA = """
N = nrow(X)
S = (X - colMeans(X)) / colSds(X)
[values, vectors] = eigen((t(S) %*% S) / (N - 1))
K = ncol(X)
V = vectors[, (K - 4):K]
result = colSums((S %*% V) ^ 2)
"""

ALS_CG = """
U = U0
V = V0
for (round in 1:3) {
  for (side in 1:2) {
    if (side == 1) { G = (W * (U %*% t(V) - X)) %*% V + 0.1 * U }
    else { G = t(W * (U %*% t(V) - X)) %*% U + 0.1 * V }
    S = -G
    R = -G
    norm = sum(R ^ 2)
    for (inner in 1:5) {
      if (side == 1) { HS = (W * (S %*% t(V))) %*% V + 0.1 * S }
      else { HS = t(W * (U %*% t(S))) %*% U + 0.1 * S }
      a = norm / sum(S * HS)
      if (side == 1) { U = U + a * S }
      else { V = V + a * S }
      R = R - a * HS
      old = norm
      norm = sum(R ^ 2)
      S = R + (norm / old) * S
    }
  }
}
result = as.matrix(sum(W * (U %*% t(V) - X) ^ 2))
"""
