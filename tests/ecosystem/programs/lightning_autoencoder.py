"""An autoencoder, as Lightning's introduction trains one, on pictures that are made up here."""

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, random_split


class Pictures(Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.rand(1, 8, 8, generator=generator), index % 10


class LitAutoEncoder(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 64))
        self.samples = 0

    def training_step(self, batch, batch_idx):
        x, _ = batch
        self.samples += len(x)
        x = x.view(x.size(0), -1)
        x_hat = self.decoder(self.encoder(x))
        loss = nn.functional.mse_loss(x_hat, x)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, _ = batch
        x = x.view(x.size(0), -1)
        self.log("val_loss", nn.functional.mse_loss(self.decoder(self.encoder(x)), x))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main():
    L.seed_everything(42)
    train_set, valid_set = random_split(Pictures(120), [96, 24])
    train_loader = DataLoader(train_set, batch_size=8, shuffle=True, num_workers=2)
    valid_loader = DataLoader(valid_set, batch_size=8, num_workers=2)
    model = LitAutoEncoder()
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, train_loader, valid_loader)
    print(f"samples: {model.samples}")
    print(f"val_loss: {trainer.callback_metrics['val_loss'].item():.6f}")


if __name__ == "__main__":
    main()
