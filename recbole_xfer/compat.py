import numpy as np, torch
for k,v in dict(float_=np.float64,complex_=np.complex128,unicode_=np.str_,float=float,int=int,object=object,str=str,long=np.int64,unicode=np.str_).items():
    if k not in np.__dict__: setattr(np,k,v)
np.bool=np.bool_
