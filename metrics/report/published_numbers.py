"""Numbers of the paper (Alghamdi, Wang, Bulpitt, Hogg; ACM Multimedia 2022), to compare ours with.

Table 1: PSNR (dB), SSIM, FID, LMD of each method on two data sets; the ablation: PSNR, SSIM, LMD on TCD-TIMIT. The
paper does not define its LMD, its crop or its split.
"""

DATASETS = {"tcd_timit": "TCD-TIMIT", "grid": "GRID"}
MEASURES = ("psnr", "ssim", "fid", "lmd")

TABLE_1: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "Vougioukas et al. 2018": {"tcd_timit": (17.24, 0.60, 16.05, 3.42), "grid": (16.72, 0.62, 13.58, 3.08)},
    "Chen et al. (ATVG)": {"tcd_timit": (15.31, 0.58, 11.79, 3.66), "grid": (16.80, 0.69, 13.27, 3.74)},
    "Zhou et al. (MakeItTalk)": {"tcd_timit": (18.10, 0.58, 18.02, 2.59), "grid": (18.53, 0.61, 11.87, 2.64)},
    "Prajwal et al. (Wav2Lip)": {"tcd_timit": (18.26, 0.64, 15.24, 2.19), "grid": (17.83, 0.69, 11.11, 2.05)},
    "the paper": {"tcd_timit": (20.55, 0.65, 8.11, 2.18), "grid": (20.33, 0.65, 5.30, 2.18)},
}
ABLATION: dict[str, tuple[float, float, float]] = {
    "without L_latent": (20.57, 0.65, 2.30),
    "without L_lpips": (20.78, 0.66, 2.75),
    "stage 1 only": (17.55, 0.49, 2.37),
    "full": (20.55, 0.65, 2.18),
}
# The recommended test volunteers of TCD-TIMIT, and the unseen speakers of GRID's common split
TEST_SPEAKERS: dict[str, frozenset[str]] = {
    "tcd_timit": frozenset(
        (
            *("28M", "55F", "25M", "56M", "49F", "44F", "33F", "09F", "18M"),
            *("54M", "45F", "36F", "34M", "15F", "58F", "08F", "41M"),
        )
    ),
    "grid": frozenset(("s2", "s4", "s11", "s13", "s15", "s18", "s19", "s25", "s31", "s33")),
}
