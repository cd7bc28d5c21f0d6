# Columns of R's model.matrix and lme4's lFormula for the formulas of formulas.txt on data.csv.  Rscript make.R, in this folder.
library(splines); library(jsonlite); suppressMessages(library(lme4)); suppressMessages(library(MASS))
d <- read.csv("data.csv", check.names=FALSE, stringsAsFactors=FALSE)
d$b <- d$b == "true"
for (v in c("f","h","s","t")) d[[v]] <- factor(d[[v]], levels=sort(unique(d[[v]]), method="radix"))
d$g <- factor(d$g, levels=c("lo","mid","hi"))
fs <- readLines("formulas.txt")
one <- function(formula, contrasts=NULL) {
  f <- as.formula(formula)
  X <- model.matrix(f, model.frame(f, d, drop.unused.levels=TRUE), contrasts.arg=contrasts)
  n <- nrow(X)
  list(formula=formula, columns=I(as.character(colnames(X))), assign=I(as.integer(attr(X,"assign"))), terms=I(attr(terms(f, data=d),"term.labels")),
   head=unname(X[1:3,,drop=FALSE]), colsums=I(unname(colSums(X))), colsumsq=I(unname(colSums(X^2))), colsum_cos=I(unname(drop(cos(seq_len(n)) %*% X))))
}
out <- lapply(fs, one)
con <- list(list("~ f*g", list(f="contr.sum", g="contr.helmert")), list("~ f*g*h", list(f="contr.helmert", g="contr.poly", h="contr.sum")),
  list("~ g", list(g="contr.sdif")), list("~ 0 + f + g", list(f="contr.sum", g="contr.sdif")), list("~ f:g", list(f="contr.sum", g="contr.poly")),
  list("~ factor(k) + b", list(`factor(k)`="contr.sum", b="contr.sum")))
outc <- lapply(con, function(c) { r <- one(c[[1]], c[[2]]); r$contrasts <- c[[2]]; r })
M <- matrix(c(1,-1,0), 3, 1); r <- one("~ f", list(f=M)); r$contrasts <- list(f=M); outc <- c(outc, list(r))
M2 <- matrix(c(-2,1,1,0,-1,1), 3, 2); r <- one("~ f*x", list(f=M2)); r$contrasts <- list(f=M2); outc <- c(outc, list(r))
bars <- c("(1 | s)","(x | s)","(0 + x | s)","(x || s)","(1 + x + z | s)","(x + z || s)","(f | s)","(0 + f | s)","(f || s)","(x*f || s)","(x*f | s)","(f:h | s)","(1 | f/h)","(x | f/h/b)","(1 | f:g)","(1 | f) + (1 | g)","(1 | s) + (0 + x | s)","(1 | t/f) + (x | s)","(1 | k)","(poly(x, 2) | s)","(b | s)", "(0 + b || s)", "(log(x) | k)")
bo <- lapply(bars, function(b) {
  f <- as.formula(paste("y ~ 1 +", b)); lf <- lFormula(f, d, control=lmerControl(check.nobs.vs.nRE="ignore", check.nobs.vs.nlev="ignore", check.nobs.vs.rankZ="ignore"))
  rt <- lf$reTrms
  list(formula=paste("y ~ 1 +", b), names=names(rt$cnms), cnms=unname(lapply(rt$cnms, I)), levels=lapply(rt$flist, levels), assign=I(attr(rt$flist,"assign")), Gp=I(rt$Gp),
   Zcos=unname(lapply(seq_along(rt$cnms), function(i) { Z <- t(as.matrix(rt$Zt))[, (rt$Gp[i]+1):rt$Gp[i+1], drop=FALSE]; I(unname(drop(cos(seq_len(nrow(Z))) %*% Z))) })))
})
new <- list(x=c(0.1,3.3,11), f=c("c","a","b"))
nd <- data.frame(x=new$x, f=factor(new$f, levels=levels(d$f)))
pf <- c("~ poly(x, 3)","~ scale(x)","~ bs(x, df = 5)","~ ns(x, df = 4)","~ ns(x, df = 3, Boundary.knots = c(2, 7))","~ scale(log(x)):f","~ bs(x, degree = 2, df = 4)")
po <- lapply(pf, function(p) { f <- as.formula(p); mf <- model.frame(f, d); tt <- terms(mf); list(formula=p, X=unname(suppressWarnings(model.matrix(tt, model.frame(tt, nd))))) })
up <- list(c("y ~ x + z", ". ~ . - z"), c("y ~ x", ". ~ . + f"), c("y ~ x*f", ". ~ . - x:f"), c("y ~ x + f", "log(.) ~ ."), c("y ~ x", "z ~ ."), c("y ~ x + f", ". ~ . - 1"), c("y ~ x - 1", ". ~ . + 1"),
  c("y ~ x + offset(z)", ". ~ . + f"), c("y ~ (x + f + g)^2", ". ~ . - f:g"), c("y ~ x", ". ~ 1"), c("y ~ x + f", ". ~ .:h"), c("y ~ x + `od d`", ". ~ . - x"), c("y ~ I(x^2) + log(x)", ". ~ . - log(x)"))
uo <- lapply(up, function(u) list(old=u[1], new=u[2], result=paste(deparse(update(as.formula(u[1]), as.formula(u[2])), width.cutoff=500), collapse=" ")))
cat(toJSON(list(origin=paste0(R.version.string, ", lme4 ", packageVersion("lme4"), ", MASS ", packageVersion("MASS")), fixed=out, contrasts=outc, random=bo, new_rows=new, predicted=po, updated=uo), digits=I(17), auto_unbox=TRUE, matrix="rowmajor"), file="columns.json")
