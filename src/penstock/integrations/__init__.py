"""What other libraries need to treat Penstock's loaders as what they are; a file for each."""
