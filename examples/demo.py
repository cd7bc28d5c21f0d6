"""The main job on embedded data: formula → fit → what the coefficients are worth, for a linear and a logistic model."""

from bossa import load_dataset, model

penguins = load_dataset("penguins")
m = model("body_mass_g ~ flipper_length_mm * species", penguins).fit().infer(errors="HC3")
print(m)
print(m.params)
print(m.summary())

titanic = load_dataset("titanic")
survival = model("survived ~ sex * age + pclass", titanic, family="binomial").fit().infer()
print(survival)
print(survival.params)
print(survival.jointtest())
