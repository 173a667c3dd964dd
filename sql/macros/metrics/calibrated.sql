-- A projection on a calibration's common scale, 0 to 1, never decreasing:
-- calibrated(projection, parameters) with the column of `calibrations`.
-- platt and z_score: logistic of slope * projection + intercept (Platt 1999).
-- isotonic and quantile: straight lines between the knots x, y.
create macro calibrated(projection, parameters) as
case
    when parameters ->> '$.slope' is not null
        then 1 / (1 + exp(-(
            (parameters ->> '$.slope')::double * projection
            + (parameters ->> '$.intercept')::double
        )))
    else
        interpolate(
            projection,
            (parameters -> '$.x')::double[],
            (parameters -> '$.y')::double[]
        )
end;
