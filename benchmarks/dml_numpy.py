"""What `dml_scripts.py` says, by hand in NumPy and SciPy, as somebody who knows both would write it."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse


def linear_regression_cg(X: Any, y: Any) -> Any:
    r = -(X.T @ y)
    p = -r
    norm = np.vdot(r, r)
    beta = np.zeros((X.shape[1], 1))
    for _ in range(13):
        q = X.T @ (X @ p) + 0.001 * p
        a = norm / np.vdot(p, q)
        beta += a * p
        r += a * q
        old, norm = norm, np.vdot(r, r)
        p = -r + (norm / old) * p
    return beta


def linear_regression_ds(X: Any, y: Any) -> Any:
    return np.linalg.solve(X.T @ X + 0.001 * np.eye(X.shape[1]), X.T @ y)


def l2_svm(X: Any, y: Any) -> Any:
    sign = np.where(y > 0, 1.0, -1.0)
    w, Xw = np.zeros((X.shape[1], 1)), np.zeros((X.shape[0], 1))
    gradient = X.T @ sign
    s = gradient
    for _ in range(6):
        Xd = X @ s
        wd, dd, step = 0.01 * np.vdot(w, s), 0.01 * np.vdot(s, s), 0.0
        for _ in range(4):
            out = 1 - sign * (Xw + step * Xd)
            inside = out > 0
            g = wd + step * dd - np.sum(out * inside * sign * Xd)
            h = dd + np.sum(Xd * inside * Xd)
            step -= g / h
        w = w + step * s
        Xw += step * Xd
        out = np.maximum(1 - sign * Xw, 0)
        following = X.T @ (out * sign) - 0.01 * w
        s = (np.vdot(following, following) / np.vdot(gradient, gradient)) * s + following
        gradient = following
    return w


def multinomial_regression(X: Any, Y: Any) -> Any:
    B = np.zeros((X.shape[1], Y.shape[1]))
    for _ in range(5):
        E = np.exp(X @ B)
        P = E / (1 + E.sum(axis=1, keepdims=True))
        R = -(X.T @ (P - Y) + 0.01 * B)
        D, V = np.zeros_like(B), R
        norm = np.vdot(R, R)
        for _ in range(4):
            Q = P * (X @ V)
            HV = X.T @ (Q - P * Q.sum(axis=1, keepdims=True)) + 0.01 * V
            a = norm / np.vdot(V, HV)
            D += a * V
            R = R - a * HV
            old, norm = norm, np.vdot(R, R)
            V = R + (norm / old) * V
        B += D
    return B


def k_means(X: Any) -> Any:
    C = X[:5]
    for _ in range(10):
        D = -2 * (X @ C.T) + (C**2).sum(axis=1)
        P = (D.min(axis=1, keepdims=True) >= D).astype(float)
        P /= P.sum(axis=1, keepdims=True)
        C = (P.T @ X) / P.sum(axis=0)[:, None]
    return C


def pca(X: Any) -> Any:
    S = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    _, vectors = np.linalg.eigh(S.T @ S / (len(X) - 1))
    return ((S @ vectors[:, -5:]) ** 2).sum(axis=0, keepdims=True)


def als_cg(W: Any, X: Any, U0: Any, V0: Any) -> Any:
    """Dense weights: the whole product. Sparse ones: the product where there are weights, by gathering factors' rows."""
    U, V = U0, V0
    if sparse.issparse(W):
        rows, cols = np.repeat(np.arange(W.shape[0]), np.diff(W.indptr)), W.indices

    def weighted(A: Any, B: Any, subtract: bool) -> Any:
        if not sparse.issparse(W):
            return W * (A @ B.T - X) if subtract else W * (A @ B.T)
        at = np.einsum("ij,ij->i", A[rows], B[cols])
        return sparse.csr_array((W.data * (at - X.data if subtract else at), W.indices, W.indptr), shape=W.shape)

    for _ in range(3):
        for side in (1, 2):
            gap = weighted(U, V, subtract=True)
            R = -(gap @ V + 0.1 * U) if side == 1 else -(gap.T @ U + 0.1 * V)
            S, norm = R, np.vdot(R, R)
            for _ in range(5):
                HS = weighted(S, V, False) @ V if side == 1 else weighted(U, S, False).T @ U
                HS = HS + 0.1 * S
                a = norm / np.vdot(S, HS)
                U, V = (U + a * S, V) if side == 1 else (U, V + a * S)
                R = R - a * HS
                old, norm = norm, np.vdot(R, R)
                S = R + (norm / old) * S
    if sparse.issparse(W):
        gap = np.einsum("ij,ij->i", U[rows], V[cols]) - X.data
        return float((W.data * gap * gap).sum())
    return float((W * (U @ V.T - X) ** 2).sum())
