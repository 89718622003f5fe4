"""The Dirac-GAN (Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?"): a game in the plane.

All data lie at 0, the generator puts all it makes at θ, and the discriminator is the line D(x) = ψ x, a logit or a critic's
value that is high for what looks real (the paper has it high for what looks generated: its ψ is -ψ). The equilibrium is
the origin.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
from scipy.special import expit

from nacre.errors import ConfigError

Game: TypeAlias = Literal["plain", "non-saturating", "wgan", "wgan-gp", "r1"]
Method: TypeAlias = Literal["flow", "alternating", "simultaneous"]
GAMES: tuple[Game, ...] = get_args(Game)


def velocity(game: Game, state: np.ndarray, *, r1: float = 0.5, gp_weight: float = 0.25) -> np.ndarray:
    """Where both players push: minus the gradient of each one's own loss by its own parameter.

    Args:
        game: "plain" (Goodfellow et al. 2014, eq. 1), "non-saturating", "wgan" (Arjovsky et al. 2017), "wgan-gp", or "r1", the
            plain game with the penalty γ/2 ψ².
        state: (…, 2), θ and ψ.
        r1: γ of "r1". In it, the paths turn around the origin on their way in for γ < 1, and go straight beyond.
        gp_weight: λ of "wgan-gp", in λ (|ψ| - 1)².

    Returns:
        (…, 2), dθ/dt and dψ/dt.
    """
    theta, psi = state[..., 0], state[..., 1]
    product = theta * psi
    moves: dict[Game, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
        "plain": lambda: (expit(product) * psi, -expit(product) * theta),
        "non-saturating": lambda: (expit(-product) * psi, -expit(product) * theta),
        "wgan": lambda: (psi, -theta),
        "wgan-gp": lambda: (psi, -theta - 2 * gp_weight * (psi - np.sign(psi))),
        "r1": lambda: (expit(product) * psi, -expit(product) * theta - r1 * psi),
    }
    if game not in moves:
        raise ConfigError(f"the games are {', '.join(GAMES)}; got '{game}'.")
    return np.stack(moves[game](), -1)


def path(
    game: Game,
    start: tuple[float, float] = (1.0, 1.0),
    *,
    steps: int = 500,
    step_size: float = 0.1,
    method: Method = "flow",
    clip: float = 2.0,
    r1: float = 0.5,
    gp_weight: float = 0.25,
) -> np.ndarray:
    """The way of both players from a start: (steps + 1, 2), θ and ψ.

    Args:
        start: θ and ψ.
        step_size: learning rate, and of the flow the time between two points.
        method: "flow" follows the velocities as time goes by (Runge-Kutta of order 4), "simultaneous" lets both players step
            from the same state, "alternating" the discriminator first, as training does.
        clip: of "wgan", the largest |ψ|, which a step may leave at most.
        r1, gp_weight: as for `velocity`.
    """

    def moved(state: np.ndarray) -> np.ndarray:
        return velocity(game, state, r1=r1, gp_weight=gp_weight)

    way = [np.array(start, np.float64)]
    for _ in range(steps):
        state = _stepped(moved, way[-1], step_size, method)
        way.append(np.array([state[0], np.clip(state[1], -clip, clip)]) if game == "wgan" else state)
    return np.stack(way)


def _stepped(
    moved: Callable[[np.ndarray], np.ndarray], state: np.ndarray, step_size: float, method: Method
) -> np.ndarray:
    if method == "simultaneous":
        return state + step_size * moved(state)
    if method == "alternating":
        judged = state + step_size * moved(state) * [0, 1]
        return judged + step_size * moved(judged) * [1, 0]
    first = moved(state)
    second = moved(state + step_size / 2 * first)
    third = moved(state + step_size / 2 * second)
    fourth = moved(state + step_size * third)
    return state + step_size / 6 * (first + 2 * second + 2 * third + fourth)
