"""nacre in scikit-learn's hands: codes for a classifier in a Pipeline, their size by GridSearchCV, new digits by label."""

import sys

from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nacre.estimator import AE, VAE

SHADES = " .:-=+*#%@"


def main() -> None:
    """Compare codes, choose their size, draw some digits."""
    digits = load_digits()
    train, test, y_train, y_test = train_test_split(digits.data / 16, digits.target, random_state=0)
    say = sys.stdout.write

    autoencoder = AE(hidden=(128,), steps=1000, random_state=0)
    pipeline = make_pipeline(StandardScaler(with_std=False), autoencoder, LogisticRegression(max_iter=2000))
    search = GridSearchCV(pipeline, {"ae__latent_dim": [2, 4, 8]}, cv=3).fit(train, y_train)
    for size, accuracy in zip([2, 4, 8], search.cv_results_["mean_test_score"], strict=True):
        linear = make_pipeline(PCA(size), LogisticRegression(max_iter=2000))
        of_pca = cross_val_score(linear, train, y_train, cv=3).mean()
        say(f"{size} numbers a digit: {accuracy:.1%} of the digits told by the autoencoder's, {of_pca:.1%} by PCA's\n")
    say(f"on digits kept aside, with {search.best_params_}: {search.score(test, y_test):.1%}\n\n")

    images = digits.images / 16
    vae = VAE(latent_dim=8, conditional=True, steps=2000, random_state=0).fit(images, digits.target)
    say(f"a conditional VAE: log p(x) is at least {vae.score(images):.1f} nats an image; a new 0, 3, 5 and 8:\n")
    drawn = [vae.sample(random_state=0, label=label)[0] for label in (0, 3, 5, 8)]
    for rows in zip(*drawn, strict=True):
        say("    ".join("".join(2 * SHADES[int(value * 9.99)] for value in row) for row in rows) + "\n")


if __name__ == "__main__":
    main()
