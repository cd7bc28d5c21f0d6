# R entrants of the benchmarks: "setup NAME", "run", "quit" on stdin, one line of JSON each on stdout.  Folder of the data: BENCH_DATA
# An entrant: the data, what is done with them before the clock starts (NULL: nothing), and what is timed.
folder <- Sys.getenv("BENCH_DATA")
read <- function(name) read.csv(file.path(folder, paste0(name, ".csv")), stringsAsFactors = TRUE)
quiet <- function(made) suppressMessages(suppressWarnings(made))
logit <- reformulate(c(paste0("x", 1:17), "g"), "y")
big <- y ~ x1 + x2 + x3 + x4 + x5 + x6 + g
herds <- cbind(incidence, size - incidence) ~ period + (1 | herd)
lmer <- function(f, d, ...) lme4::fixef(quiet(lme4::lmer(f, d, ...)))
glmer <- function(f, d, q) lme4::fixef(quiet(lme4::glmer(f, d, family = binomial, nAGQ = q)))
few <- function() lme4::lmerControl(calc.derivs = FALSE)
logistic <- function(d) glm(logit, binomial, d)
satterthwaite <- function(m) coef(summary(lmerTest::as_lmerModLmerTest(m)))[, "df"]
five <- y ~ x1 + x2 + x3 + x4 + x5
design <- function(d) list(X = model.matrix(five, d), y = d$y, d = d)
by_rows <- function(l, R, f) { b <- boot::boot(l$d, function(d, i) f(l$X[i, ], l$y[i]), R = R); apply(b$t, 2, sd) }
least <- function(X, y) .lm.fit(X, y)$coefficients
scored <- function(X, y) glm.fit(X, y, family = binomial())$coefficients
permuted <- function(l) {  # y against the same X: no term is held
  t_of <- function(y) { f <- .lm.fit(l$X, y); f$coefficients / sqrt(V * sum(f$residuals^2)) }
  V <- diag(solve(crossprod(l$X))); t0 <- abs(t_of(l$y)); count <- 0
  for (i in 1:10000) count <- count + (abs(t_of(sample(l$y))) >= t0)
  ((count + 1) / 10001)[-1]
}
days <- Reaction ~ Days + (Days | Subject)
subjects <- function(d) { e <- unlist(lapply(unique(d$Subject), function(s) {
  f <- quiet(lme4::lmer(days, d[d$Subject != s, ])); t <- d[d$Subject == s, ]; t$Reaction - predict(f, t, re.form = NA) })); sqrt(mean(e^2)) }
sd_of <- function(m, n) apply(quiet(lme4::bootMer(m, lme4::fixef, nsim = n))$t, 2, sd)
slopes <- function(m) {  # average slopes, and their errors by numerical derivatives
  b <- coef(m); V <- vcov(m); X <- model.matrix(m)
  f <- function(b) mean(dlogis(drop(X %*% b))) * b[2:18]
  a <- f(b); J <- sapply(seq_along(b), function(j) { v <- b; v[j] <- v[j] + 1e-6; (f(v) - a) / 1e-6 })
  c(a, sqrt(diag(J %*% V %*% t(J))))
}
studies <- function(p_of) function(d) {  # how often 500 simulated studies reject x = 0, by refit() of one fit: it does not leave a boundary
  L <- t(chol(matrix(c(.25, .03, .03, .09), 2))); m <- NULL; hits <- 0
  for (i in 1:500) {
    b <- L %*% matrix(rnorm(2 * nlevels(d$g)), 2); d$y <- .15 * d$x + b[1, d$g] + b[2, d$g] * d$x + rnorm(nrow(d)); kept <<- d
    f <- quiet(if (is.null(m)) lme4::lmer(y ~ x + (x | g), kept) else lme4::refit(m, d$y)); hits <- hits + (p_of(f) < .05)
    if (is.null(m) && !lme4::isSingular(f)) m <- f
  }
  hits / 500
}
walk <- function(d) list(y = d$y, m = list(T = matrix(1), Z = 1, h = 1, V = matrix(0.1), a = 0, P = matrix(1), Pn = matrix(1.1)))
run <- function(l) { m <- KalmanRun(l$y, l$m)$states; c(m[length(m)], mean(m)) }
weeks <- function(d) lapply(split(seq_len(nrow(d)), d$week), function(i) list(X = cbind(1, as.matrix(d[i, paste0("x", 1:19)])), y = d$y[i]))
learn <- function(l) {
  G <- diag(20); r <- numeric(20)
  for (b in l) { G <- G + crossprod(b$X); r <- r + crossprod(b$X, b$y); m <- backsolve(R <- chol(G), forwardsolve(t(R), r)) }
  m[, 1]
}
W <- list(
  "W19a/KalmanRun" = list("w19_numbers", walk, run),
  "W19a/KalmanRun + KalmanSmooth" = list("w19_numbers", walk, function(l) { KalmanSmooth(l$y, l$m); run(l) }),
  "W19b/R loop" = list("w19_weeks", weeks, learn),
  "W2/R lm" = list("w02_lm_small", NULL, function(d) coef(lm(y ~ x1 + x2 + g, d))),
  "W2/R lm + summary" = list("w02_lm_small", NULL, function(d) coef(summary(lm(y ~ x1 + x2 + g, d)))[, 1]),
  "W3/R lm" = list("w03_lm_big", NULL, function(d) coef(lm(big, d))),
  "W3/R .lm.fit" = list("w03_lm_big", NULL, function(d) .lm.fit(model.matrix(big[-2], d), d$y)$coefficients),
  "W4/R glm" = list("w04_logit", NULL, function(d) coef(logistic(d))),
  "W5/lme4" = list("w05_sleepstudy", NULL, function(d) lmer(Reaction ~ Days + (Days | Subject), d)),
  "W6/lme4" = list("w06_crossed", NULL, function(d) lmer(y ~ service + (1 | s) + (1 | d), d, REML = FALSE, control = few())),
  "W7/lme4" = list("w07_slopes", NULL, function(d) lmer(y ~ x + z + (x | g), d, control = few())),
  "W8a0/lme4" = list("w08_cbpp", NULL, function(d) glmer(herds, d, 0)),
  "W8a1/lme4" = list("w08_cbpp", NULL, function(d) glmer(herds, d, 1)),
  "W8b0/lme4" = list("w08_glmm", NULL, function(d) glmer(y ~ x1 + x2 + (1 | g), d, 0)),
  "W8b1/lme4" = list("w08_glmm", NULL, function(d) glmer(y ~ x1 + x2 + (1 | g), d, 1)),
  "W9/boot + .lm.fit" = list("w09_lm", design, function(l) by_rows(l, 10000, least)),
  "W9b/boot + .lm.fit" = list("w09_lm", design, function(l) by_rows(l, 10000, least)),
  "W10/boot + glm.fit" = list("w10_logit", design, function(l) by_rows(l, 1000, scored)),
  "W11/.lm.fit loop" = list("w09_lm", design, permuted),
  "W12/bootMer" = list("w05_sleepstudy", function(d) lme4::lmer(days, d), function(m) sd_of(m, 1000)),
  "W13/bootMer" = list("w08_cbpp", function(d) lme4::glmer(herds, d, family = binomial), function(m) sd_of(m, 200)),
  "W14a/hat identity" = list("w14_lm", function(d) lm(five, d), function(m) sqrt(mean((residuals(m) / (1 - hatvalues(m)))^2))),
  "W14b/cv.glm" = list("w14_lm", function(d) list(d, glm(five, data = d)), function(l) sqrt(boot::cv.glm(l[[1]], l[[2]], K = 10)$delta[1])),
  "W14c/lmer loop" = list("w05_sleepstudy", NULL, subjects),
  "W15/confint" = list("w05_sleepstudy", function(d) { kept <<- d; lme4::lmer(days, kept) },
    function(m) { b <- quiet(confint(m, oldNames = FALSE)); c(b[5:6, 1], b[5:6, 2]) }),
  "W16/emmeans" = list("w04_logit", logistic, function(m) {
    s <- as.data.frame(summary(emmeans::emmeans(m, ~g, type = "response"))); c(s$prob, s$SE) }),
  "W16b/R by hand" = list("w04_logit", logistic, slopes),
  "W17a/lmerTest" = list("w05_sleepstudy", function(d) { fitted_to <<- d; lme4::lmer(Reaction ~ Days + (Days | Subject), fitted_to) }, satterthwaite),
  "W17b/lmerTest" = list("w07_slopes", function(d) { fitted_to <<- d; quiet(lme4::lmer(y ~ x + z + (x | g), fitted_to)) }, satterthwaite),
  "W18a/refit loop" = list("w18_power", NULL, studies(function(m) 2 * pnorm(-abs(coef(summary(m))[2, 3])))),
  "W18b/lmerTest loop" = list("w18_power", NULL, studies(function(m) coef(summary(quiet(lmerTest::as_lmerModLmerTest(m))))[2, 5])))
peak <- function() as.numeric(gsub("[^0-9]", "", grep("VmHWM", readLines("/proc/self/status"), value = TRUE))) / 1024
say <- function(...) cat(sprintf(...), "\n", sep = "")
input <- file("stdin", "r")
while (length(line <- readLines(input, 1)) && line != "quit") {
  if (startsWith(line, "setup ")) {
    w <- W[[sub("setup ", "", line)]]; d <- read(w[[1]]); if (!is.null(w[[2]])) d <- w[[2]](d); gc()
    try(writeLines("5", "/proc/self/clear_refs"), silent = TRUE)
    say('{"peak": %.1f}', peak())
  } else {
    t <- proc.time()[[3]]; n <- 0
    repeat { b <- w[[3]](d); n <- n + 1; if (proc.time()[[3]] - t > 0.2) break }
    say('{"seconds": %.9f, "peak": %.1f, "coef": [%s]}', (proc.time()[[3]] - t) / n, peak(), paste(sprintf("%.17g", b), collapse = ","))
  }
}
