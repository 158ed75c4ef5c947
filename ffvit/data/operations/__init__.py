"""Operations on the pixels of uint8 images: what is drawn, what that means, how it is computed."""
