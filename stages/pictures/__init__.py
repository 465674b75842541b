"""Drawing and plotting, with one palette and one way to place labels."""
