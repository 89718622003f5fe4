"""The catalogue: models by name, imported when asked for. A model never imports another."""

CATALOGUE: dict[str, str] = {
    "ae": "nacre.models.ae:AE",
    "stacked_ae": "nacre.models.stacked_ae:StackedAE",
    "transfer": "nacre.models.transfer:Transfer",
    "vae": "nacre.models.vae:VAE",
    "iwae": "nacre.models.iwae:IWAE",
    "lvae": "nacre.models.lvae:LVAE",
    "m2": "nacre.models.m2:M2",
    "vaegan": "nacre.models.vaegan:VAEGAN",
    "gan": "nacre.models.gan:GAN",
    "dcgan": "nacre.models.gan:DCGAN",
    "wgan": "nacre.models.wgan:WGAN",
    "wgan_gp": "nacre.models.wgan_gp:WGANGP",
    "began": "nacre.models.began:BEGAN",
    "r3gan": "nacre.models.r3gan:R3GAN",
    "cyclegan": "nacre.models.cyclegan:CycleGAN",
    "pix2pix": "nacre.models.pix2pix:Pix2Pix",
    "stackgan": "nacre.models.stackgan:StackGAN",
}
"""Name on the command line ↦ module and class."""
