"""The catalogue: models by name, imported when asked for. A model never imports another."""

CATALOGUE: dict[str, str] = {
    "ae": "nacre.models.ae:AE",
    "vae": "nacre.models.vae:VAE",
    "iwae": "nacre.models.iwae:IWAE",
    "gan": "nacre.models.gan:GAN",
    "dcgan": "nacre.models.gan:DCGAN",
    "wgan_gp": "nacre.models.wgan_gp:WGANGP",
}
"""Name on the command line ↦ module and class."""
