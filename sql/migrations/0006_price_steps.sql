-- Large steps between two bars, and identical series, are remarks on an asset too.
ALTER TABLE asset_identity DROP CONSTRAINT asset_identity_trait_check;
ALTER TABLE asset_identity ADD CONSTRAINT asset_identity_trait_check CHECK (trait IN (
    'ticker_reused', 'later_coin', 'price_step', 'identical', 'long_hole', 'ended', 'stable',
    'multiple', 'same_coin'
));
